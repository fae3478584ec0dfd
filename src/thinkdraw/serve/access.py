"""Who may ask a served reward: anybody on the same machine, and beyond it those who know the token."""

import os

from thinkdraw.errors import UserError


def read_token(token_env: str) -> str:
    """The token in that environment variable, "" where it is not set. Raises UserError for one that no header carries."""
    token = os.environ.get(token_env, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise UserError(f"the token in {token_env} has characters that no HTTP header carries. Use letters and digits.")
    return token
