"""Who may ask a served reward: this machine, and whoever knows the token."""

from thinkdraw.runtime.endpoints import read_secret


def read_token(token_env: str) -> str:
    """Read the token in that environment variable, "" where it is not set.

    Raises UserError for a token that no HTTP header can carry.
    """
    return read_secret(token_env, "token_env")
