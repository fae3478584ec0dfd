"""Policies to test: a small random Janus (2 layers, 16 image tokens of 64 codes, a vocabulary of 320), and every family."""

from pathlib import Path

import pytest
from tests.policies.suite import FAMILIES

from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.types import Policy


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


@pytest.fixture(scope="session", params=FAMILIES)
def family(request, checkpoint) -> str:
    """What `load_policy` opens, of each family in turn."""
    name = FAMILIES[request.param]
    return str(checkpoint) if name == "checkpoint" else name


@pytest.fixture(scope="session")
def any_shared_policy(family) -> Policy:
    """Of each family; not to be changed by a test."""
    return load_policy(family)


@pytest.fixture
def any_policy(family) -> Policy:
    """A fresh one of each family."""
    return load_policy(family)


@pytest.fixture(scope="session")
def reference_model(checkpoint):
    """The same checkpoint through plain transformers."""
    from transformers import JanusForConditionalGeneration

    return JanusForConditionalGeneration.from_pretrained(checkpoint).eval()
