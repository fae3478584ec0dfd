"""What all clients of web endpoints do alike: check the address they are given, and read how long they shall wait."""

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


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, None where it does not say; the other form, a date, is left to the back-off."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
