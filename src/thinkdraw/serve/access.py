"""Who may ask a served reward: anybody on the same machine, and beyond it those who know the token."""

import ipaddress
import os

from thinkdraw.errors import UserError


def read_token(token_env: str) -> str:
    """The token in that environment variable, "" where it is not set. Raises UserError for one that no header carries."""
    token = os.environ.get(token_env, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise UserError(f"the token in {token_env} has characters that no HTTP header carries. Use letters and digits.")
    return token


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and no other: localhost, 127.0.0.1, ::1. A name that would have to be looked up is not."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
