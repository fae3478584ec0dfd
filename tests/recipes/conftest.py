import pytest

from thinkdraw.policies.tiny import random_janus


@pytest.fixture(scope="session")
def policy(tmp_path_factory) -> str:
    """A random checkpoint of 16 image tokens and 64 codes."""
    return str(random_janus(tmp_path_factory.mktemp("tiny") / "policy", layers=1))
