"""Addresses of servers, which key may go to which, and how long to wait; `http.py` is the client that asks them."""

import ipaddress
import math
import os
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from thinkdraw.errors import UserError

OPENAI = "https://api.openai.com/v1"
TRUSTED_HOSTS = "THINKDRAW_TRUSTED_HOSTS"
"""Environment variable: hosts of a network that is trusted, so that keys may go there in clear."""
CONNECTION_SETTINGS = frozenset(
    {"base_url", "url", "api_key_env", "token_env", "timeout_s", "max_retries", "retries", "backoff_s", "max_concurrent",
     "max_concurrency", "break_after", "break_s"}
)  # fmt: skip
"""Settings of judges that say where and how patiently one is asked: with others it is the same judge."""

_IN_ADDRESS = re.compile(r"(?<=//)[^/@\s\"']*@")
_IN_QUERY = re.compile(r"([?&][\w-]*(?:key|token|secret|password|signature|sig)=)[^&\s\"'#]+", re.IGNORECASE)


def mask_secrets(text: str) -> str:
    """The text with users, passwords and keys in its addresses masked."""
    return _IN_QUERY.sub(r"\1***", _IN_ADDRESS.sub("***@", text))


def drop_connection_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings of a reward or judge, and of those in it, without `CONNECTION_SETTINGS`: what its verdicts follow from."""
    kept = {name: value for name, value in settings.items() if name not in CONNECTION_SETTINGS}
    return {k: drop_connection_settings(v) if isinstance(v, Mapping) else v for k, v in kept.items()}


def check_url(url: str, setting: str = "base_url") -> str:
    """The address without a slash at its end. Raises UserError for one that is none, or that holds what must not be logged."""
    url, form = url.strip(), "http://HOST:PORT" if setting == "url" else "http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(url)
        _ = parts.port  # read for its error
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
    """Whether `host` is this machine and no other: localhost, 127.0.0.1, ::1. A name that would have to be looked up is not."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_trusted(url: str) -> bool:
    """Whether a key may go there in clear: to this machine, and to the hosts that THINKDRAW_TRUSTED_HOSTS names."""
    host = urlsplit(url).hostname or ""
    return is_loopback(host) or host in re.split(r"[\s,]+", os.environ.get(TRUSTED_HOSTS, "").lower())


def read_secret(variable: str, setting: str) -> str:
    """The key in an environment variable, "" where it is not set. Raises UserError for a name that is none, which is not shown."""
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
    """The key that goes to `url`, "" for none: no key goes where it was not given for, and none in clear beyond `is_trusted`.

    named: the variable that stands beside the address in the configuration, under the name `setting`. usual: the one that
    is read if none is named, where the address is its home. Raises UserError, also for a named one that is not set, unless
    the server is on this machine, where it may need none.
    """
    variable = named or (usual if at_home else "")
    key = read_secret(variable, setting) if variable else ""
    host = urlsplit(url).hostname or ""
    if named and named != usual and not key and not is_loopback(host):
        raise UserError(f"{setting}={named}: that environment variable is not set. Put the key into it.")
    if key and not url.startswith("https://") and not is_trusted(url):
        raise UserError(
            f"the key in {variable} would travel to {url} in clear. Give an https:// address; or, on a network that you "
            f"trust, name the host: export {TRUSTED_HOSTS}={host}."
        )
    return key


def openai_key_for_url(url: str, setting: str, named: str | None) -> str:
    """As `key_for_url`: OPENAI_API_KEY, if no variable is named, for OpenAI and the address in OPENAI_BASE_URL alone."""
    homes = {urlsplit(home).netloc for home in (OPENAI, os.environ.get("OPENAI_BASE_URL", ""))}
    return key_for_url(url, setting, named, "OPENAI_API_KEY", at_home=urlsplit(url).netloc in homes)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, None where it does not say; the other form, a date, is left to the back-off."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def backoff_pause_s(first_s: float, tries: int, most_s: float) -> float:
    """The pause after so many tries: first_s · 2^tries seconds, at most `most_s`."""
    return min(most_s, first_s * 2 ** min(tries, 60))
