"""A container's limit is free memory too."""

import math
from pathlib import Path

import pytest

from thinkdraw.policies.sampling.control_group import free_bytes


def group(folder: Path, limit: str, used: int, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "own").write_text("4:memory:/old\n0::/job/step\n")
    return tmp_path / "own"


def test_what_is_left_is_that_of_the_tightest_group_around(tmp_path: Path, own: Path):
    groups = tmp_path / "groups"
    group(groups / "job" / "step", "max", 10)
    group(groups / "job", "1000", 400, inactive=50)
    assert free_bytes(groups, own) == 650  # the outermost, `groups` itself, has no file of a limit
    group(groups / "job" / "step", "300", 290)
    assert free_bytes(groups, own) == 10
    group(groups / "job" / "step", "300", 320)
    assert free_bytes(groups, own) == 0


def test_without_groups_or_limits_there_is_none(tmp_path: Path, own: Path):
    assert free_bytes(tmp_path / "nothing", own) == math.inf
    assert free_bytes(tmp_path, tmp_path / "no such file") == math.inf
    (tmp_path / "old").write_text("4:memory:/old\n")
    assert free_bytes(tmp_path, tmp_path / "old") == math.inf
