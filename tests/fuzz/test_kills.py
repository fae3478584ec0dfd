"""Whatever a writer is killed in the middle of, it goes on to what an undisturbed run gives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KILLS = os.environ.get("FUZZ_KILLS", "12")  # 100 takes some minutes


@pytest.mark.slow
def test_a_killed_writer_goes_on_to_the_end_of_an_undisturbed_one():
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.kills", "--kills", KILLS],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
