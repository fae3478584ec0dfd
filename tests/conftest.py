"""Tests use no network, a fixed number of threads, and fresh seeds."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "2")

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from thinkdraw.policies.janus.tiny import random_janus

REPO_ROOT = Path(__file__).resolve().parent.parent

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(autouse=True)
def _fixed_seeds():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Published benchmark files that stand beside the checkout and are not part of it."""
    folder = REPO_ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("../shared is absent: tests against the published benchmark files need it beside the checkout")
    return folder


@pytest.fixture(scope="session")
def policy(tmp_path_factory) -> str:
    """A random checkpoint of 16 image tokens and 64 codes, for tests of recipes."""
    return str(random_janus(tmp_path_factory.mktemp("tiny") / "policy", layers=1))
