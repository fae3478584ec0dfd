"""One small random checkpoint for all store tests: 16 image tokens of 64 codes."""

from pathlib import Path

import pytest

from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.tiny import random_janus


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return random_janus(tmp_path_factory.mktemp("janus") / "tiny", layers=1)


@pytest.fixture(scope="session")
def policy(checkpoint) -> JanusPolicy:
    """Not to be changed by a test."""
    return load_policy(checkpoint)
