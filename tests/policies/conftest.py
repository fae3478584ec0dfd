"""One small random checkpoint for all policy tests: 2 layers, 16 image tokens of 64 codes, a vocabulary of 320."""

from pathlib import Path

import pytest

from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.tiny import random_janus


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return random_janus(tmp_path_factory.mktemp("janus") / "tiny")


@pytest.fixture(scope="session")
def shared_policy(checkpoint) -> JanusPolicy:
    """Not to be changed by a test."""
    return load_policy(checkpoint)


@pytest.fixture
def policy(checkpoint) -> JanusPolicy:
    """A fresh one, for tests that change weights or settings."""
    return load_policy(checkpoint)


@pytest.fixture(scope="session")
def reference_model(checkpoint):
    """The same checkpoint through plain transformers."""
    from transformers import JanusForConditionalGeneration

    return JanusForConditionalGeneration.from_pretrained(checkpoint).eval()
