"""Addresses of servers, and how long to wait for one; `http.py` is the client that asks them."""

import ipaddress
import math
from collections.abc import Mapping
from urllib.parse import urlsplit

from thinkdraw.errors import UserError


def checked_url(base_url: str) -> str:
    """The address without a slash at its end. Raises UserError for one that is none, or that holds what must not be logged."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"base_url={base_url}: not a web address. Give it as http://127.0.0.1:8000/v1.")
    if parts.username or parts.password or parts.query:
        raise UserError(
            f"base_url at {parts.hostname} holds a user, a password or a query, which would end up in logs. "
            "Put the key into an environment variable and give that one's name."
        )
    return base_url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and no other: localhost, 127.0.0.1, ::1. A name that would have to be looked up is not."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, None where it does not say; the other form, a date, is left to the back-off."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def doubled_s(first_s: float, tries: int, most_s: float) -> float:
    """The pause after so many tries: first_s · 2^tries seconds, at most `most_s`."""
    return min(most_s, first_s * 2 ** min(tries, 60))
