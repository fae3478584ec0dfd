"""The example family trains through the command line, from its own folder, and knows nothing of another family."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "my_policy"


# -P: the current folder is not put on Python's path, as it is not where `thinkdraw` is called.
def thinkdraw(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-P", "-c", "from thinkdraw.cli import main; main()", *words]
    return subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True)


def test_one_grpo_step_and_a_picture_of_what_was_learned(tmp_path):
    trained = thinkdraw("train", "grpo.yaml", f"out={tmp_path / 'run'}", "num_threads=1")
    assert trained.returncode == 0, trained.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1] and rows[0]["grad_norm"] > 0 and rows[0]["ratio_max_deviation"] < 1e-3
    drawn = thinkdraw(
        "generate",
        f"policy:GridPolicy@{tmp_path / 'run'}",
        "-p",
        "a star",
        "samples=1",
        "--out",
        str(tmp_path / "d"),
    )
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "d" / "00000_0.png").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("generate policy:GridPolicy@nowhere -p star", "policy nowhere holds no model.safetensors"),
        (
            "eval policy:GridPolicy -n 6 -o {out}",
            "it answers no questions. Ask another judge, or none: questions_per_type=0",
        ),
        (
            "train lab_sft policy=policy:GridPolicy data.count=4 batch_rows=4 out={out}",
            "pictures have 64×64 pixels, but the policy draws 20×28",
        ),
        ("train grpo.yaml sampling.thought=rewrite out={out}", "takes inline or off"),
    ],
)
def test_what_it_cannot_do_is_refused_in_a_line(tmp_path, words, says):
    done = thinkdraw(*words.format(out=tmp_path / "out").split())
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr


def test_the_example_imports_no_other_family():
    names = [
        node.module or ""
        for file in FOLDER.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    assert names and not [name for name in names if "janus" in name]
