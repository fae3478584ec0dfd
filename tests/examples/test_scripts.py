"""The numbered examples run as their first lines say, and are as short as their names promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thinkdraw.lab import checkpoint_path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SCRIPTS = sorted(EXAMPLES.glob("[0-9]*.py"))

needs_checkpoint = pytest.mark.skipif(
    not (checkpoint_path() / "config.json").exists(), reason="the lab checkpoint is not in this tree"
)


def run(folder: Path, name: str, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent / "src"), "PYTHONWARNINGS": "error::UserWarning"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *words], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_an_example_says_how_it_is_run_and_holds_no_more_than_150_lines(script: Path):
    text = script.read_text()
    assert f"    python examples/{script.name}\n" in text and len(text.splitlines()) <= 150


@pytest.mark.slow
@needs_checkpoint
def test_01_draws_a_sheet_with_thoughts_and_without(tmp_path: Path):
    said = run(tmp_path, "01_draw.py")
    assert said.count("\n- ") + said.startswith("- ") == 4 and (tmp_path / "pictures/01_draw.png").is_file()


@pytest.mark.slow
@needs_checkpoint
def test_02_trains_with_the_reward_of_the_script_and_writes_a_report(tmp_path: Path):
    said = run(tmp_path, "02_my_reward.py", "--steps", "1")
    assert "before training: tensor([" in said and (tmp_path / "runs/darkness/report.html").is_file()
    assert "02_my_reward:Darkness" in (tmp_path / "runs/darkness/config.yaml").read_text()


@pytest.mark.slow
@needs_checkpoint
def test_03_learns_by_hand_and_saves_a_checkpoint_that_opens(tmp_path: Path):
    said = run(tmp_path, "03_grpo_in_150_lines.py", "--phases", "1", "--test-prompts", "6")
    assert "phase 1/1  reward 0." in said and "after: " in said

    from thinkdraw import load_policy

    # An optimiser step was made: the weights are others than those it began with.
    assert load_policy(str(tmp_path / "runs/by_hand")).revision != load_policy("lab").revision
