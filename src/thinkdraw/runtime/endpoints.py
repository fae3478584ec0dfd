"""Addresses of servers, which API key may go to which, and how long to wait.

`http.py` is the client that uses them.
"""

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from thinkdraw.errors import UserError

OPENAI = "https://api.openai.com/v1"
TRUSTED_HOSTS = "THINKDRAW_TRUSTED_HOSTS"
"""Environment variable: hosts of a trusted network, to which keys may go unencrypted."""
CONNECTION_SETTINGS = frozenset(
    {"base_url", "url", "api_key_env", "token_env", "timeout_s", "max_retries", "retries", "backoff_s", "max_concurrent",
     "max_concurrency", "break_after", "break_s"}
)  # fmt: skip
"""Settings that say where a judge is and how long to wait for it. They do not change its answers."""

_IN_ADDRESS = re.compile(r"(?<=//)[^/@\s\"']*@")
_IN_QUERY = re.compile(r"([?&][\w-]*(?:key|token|secret|password|signature|sig)=)[^&\s\"'#]+", re.IGNORECASE)


def mask_secrets(text: str) -> str:
    """Mask the users, passwords and keys in the web addresses of a text."""
    return _IN_QUERY.sub(r"\1***", _IN_ADDRESS.sub("***@", text))


def drop_connection_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Drop `CONNECTION_SETTINGS` from a judge's or reward's settings, nested ones too.

    What is left decides the verdicts.
    """
    return {
        name: drop_connection_settings(value) if isinstance(value, Mapping) else value
        for name, value in settings.items()
        if name not in CONNECTION_SETTINGS
    }


def check_url(url: str, setting: str = "base_url") -> str:
    """Return the address without a slash at its end.

    Raises UserError for text that is no web address, and for an address with a user, a password or a query, which must not be logged.
    """
    url, form = url.strip(), "http://HOST:PORT" if setting == "url" else "http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError for a port that is no number
    except ValueError as error:
        raise UserError(f"{setting} is no web address ({error}). Give it as {form}.") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UserError(
            f"{setting} at {parts.hostname} holds a user, a password or a query, which would end up in logs. "
            "Put the key into an environment variable and give that one's name."
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or not re.fullmatch(r"[!-~]+", url):
        shown = mask_secrets(re.sub(r"^[^/]*@", "***@", url))[:80]
        raise UserError(f"{setting}={shown!r}: not a web address. Give it as {form}.")
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Tell whether `host` is this machine: localhost, 127.0.0.1 or ::1.

    A name that would have to be looked up is not.
    """
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_trusted(url: str) -> bool:
    """Tell whether a key may go to `url` unencrypted.

    It may go to this machine and to the hosts that THINKDRAW_TRUSTED_HOSTS names.
    """
    host = urlsplit(url).hostname or ""
    return is_loopback(host) or host in re.split(r"[\s,]+", os.environ.get(TRUSTED_HOSTS, "").lower())


def read_secret(variable: str, setting: str) -> str:
    """Read the key in an environment variable; "" where it is not set.

    Raises UserError for text that is no variable's name. The message does not show it, because it may be the key itself.
    """
    is_name = re.fullmatch(r"[A-Za-z_]\w*", variable, re.ASCII)
    if not is_name or (len(variable) >= 20 and re.search(r"[a-z]", variable) and re.search(r"\d", variable)):
        raise UserError(
            f"{setting} takes the name of an environment variable, and holds something else: the key itself? "
            f"Put the key into a variable, and {setting}=ITS_NAME."
        )
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[ -~]*", key):
        raise UserError(f"the key in {variable} has characters that no HTTP header carries. Use letters and digits.")
    return key


def key_for_url(url: str, setting: str, named: str | None, usual: str = "", at_home: bool = False) -> str:
    """Return the key to send to `url`, "" for none.

    named: the variable that the configuration names for this address in its key `setting`. usual: the variable to read when none is
    named and the address is the key's home (`at_home`). A key is sent only where one of the two allows it, and unencrypted only where
    `is_trusted`. Raises UserError otherwise, and for a named variable that is not set, unless the server is on this machine, where it
    may need no key.
    """
    variable = named or (usual if at_home else "")
    key = read_secret(variable, setting) if variable else ""
    host = urlsplit(url).hostname or ""
    if named and named != usual and not key and not is_loopback(host):
        raise UserError(f"{setting}={named}: that environment variable is not set. Put the key into it.")
    if key and not url.startswith("https://") and not is_trusted(url):
        raise UserError(
            f"the key in {variable} would travel to {url} in clear text. Give an https:// address; or, on a network that you "
            f"trust, name the host: export {TRUSTED_HOSTS}={host}."
        )
    return key


def openai_key_for_url(url: str, setting: str, named: str | None) -> str:
    """Return the key for an OpenAI-compatible server, as `key_for_url` does.

    If no variable is named, OPENAI_API_KEY goes to OpenAI and to the address in OPENAI_BASE_URL alone.
    """
    homes = {urlsplit(home).netloc for home in (OPENAI, os.environ.get("OPENAI_BASE_URL", ""))}
    return key_for_url(url, setting, named, "OPENAI_API_KEY", at_home=urlsplit(url).netloc in homes)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read the seconds that a server asks to wait; None where it gives none.

    The header's other form, a date, counts as none: the back-off decides then.
    """
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def backoff_pause_s(first_s: float, tries: int, most_s: float) -> float:
    """Compute the pause after `tries` tries: first_s · 2^tries, at most `most_s`."""
    return min(most_s, first_s * 2 ** min(tries, 60))
