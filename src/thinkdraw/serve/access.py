"""Who may ask a served reward: anybody on the same machine, and beyond it those who know the token."""

from thinkdraw.runtime.endpoints import read_secret


def read_token(token_env: str) -> str:
    """The token in that environment variable, "" where it is not set. Raises UserError for one that no header carries."""
    return read_secret(token_env, "token_env")
