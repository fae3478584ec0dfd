"""Without `policies/fast` everything still runs: the policy suite against a copy of the package that lacks it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.policies.suite import PROMPTS, SEEDS, assert_same_rollouts, sampling

import thinkdraw
from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy, speed

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(thinkdraw.__file__).parent
# Parity of sampler and trainer, padding, seeds, prefixes, guidance, kept sets, gradients, saving and loading.
SUITE = ["test_likelihood.py", "test_sampling.py", "test_teacher_forced.py", "test_against_transformers.py",
         "janus/test_policy.py", "sampling/test_decoder.py"]  # fmt: skip


def copy_of_the_package(folder: Path, *left_out: str) -> Path:
    """`src` of a copy without some files or folders, and without the lab's weights, which no policy test needs."""
    source = folder / "src"
    ignored = shutil.ignore_patterns("assets", "__pycache__")
    shutil.copytree(PACKAGE, source / "thinkdraw", ignore=ignored)
    for name in left_out:
        path = source / "thinkdraw" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return source


@pytest.mark.skipif(not speed.is_on(), reason="the folder is absent here already")
def test_the_policy_suite_passes_without_the_folder(tmp_path):
    source = copy_of_the_package(tmp_path, "policies/fast")
    files = [str(ROOT / "tests" / "policies" / name) for name in SUITE]
    paths = [f"pythonpath={source} {ROOT}", "-p", "no:cacheprovider", "-k", "not top_k"]
    reply = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-o", *paths, *files], cwd=ROOT, capture_output=True, text=True
    )
    assert reply.returncode == 0, reply.stdout[-3000:] + reply.stderr[-1000:]
    assert "policies/fast is absent" in reply.stdout  # the warning: the copy was tested, and says what it lacks


def test_a_folder_that_is_there_in_part_is_refused(tmp_path):
    source = copy_of_the_package(tmp_path, "policies/fast/cuda_graphs.py")
    command = "from thinkdraw.policies import speed; speed.is_on()"
    environment = os.environ | {"PYTHONPATH": str(source)}
    reply = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True)
    said = reply.stderr.strip().splitlines()[-1]
    assert "fast is incomplete" in said and "cuda_graphs" in said and "THINKDRAW_FAST=off" in said


def test_only_one_file_knows_the_folder():
    files = {file.relative_to(PACKAGE).as_posix(): file.read_text() for file in PACKAGE.rglob("*.py")}
    knowing = {name for name, code in files.items() if "policies.fast" in code or "policies import fast" in code}
    assert {name for name in knowing if not name.startswith("policies/fast/")} == {"policies/speed.py"}


@pytest.fixture
def switch(monkeypatch):
    def turn(value: str) -> None:
        monkeypatch.setenv(speed.SWITCH, value)
        speed.is_on.cache_clear()

    yield turn
    speed.is_on.cache_clear()


def test_the_switch_changes_rounding_only(switch, checkpoint):
    settings = sampling(guidance_scale=3.0)
    rollouts = load_policy(checkpoint).sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    switch("off")
    assert not speed.is_on()
    assert_same_rollouts(load_policy(checkpoint).sample(PROMPTS, settings, group_size=2, seeds=SEEDS), rollouts)


def test_an_unknown_position_of_the_switch_is_refused(switch):
    switch("of")
    with pytest.raises(UserError, match="THINKDRAW_FAST=of is unknown"):
        speed.is_on()
