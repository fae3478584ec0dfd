"""What a user can get wrong is one line on standard error that says what to do, and exit code 2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from thinkdraw import cli
from thinkdraw.policies.janus.tiny import random_janus


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_janus(tmp_path_factory.mktemp("ckpt") / "janus")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["thinkdraw", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error, after the line that says how a checkpoint draws."""
    lines = [line for line in capsys.readouterr().err.strip().splitlines() if " draws with " not in line]
    assert len(lines) == 1 and lines[0].startswith("thinkdraw: "), lines
    return lines[0]


def test_a_missing_checkpoint(monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, "check", str(tmp_path / "nothing")) == 2
    assert "is not a folder" in one_line(capsys)


def test_a_truncated_checkpoint(monkeypatch, capsys, tmp_path, checkpoint):
    import shutil

    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run(monkeypatch, "check", str(broken)) == 2
    assert "cannot be read" in one_line(capsys)


def test_a_text_only_model(monkeypatch, capsys, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    assert run(monkeypatch, "generate", str(tmp_path), "-p", "a cat") == 2
    assert "model_type=llama" in one_line(capsys)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("grup_size=4", "group_size"),
        ("sampling.guidance=5", "guidance_scale"),
        ("group_size=1", "group_size"),
        ("max_steps=many", "max_steps"),
    ],
)
def test_wrong_configuration_keys_and_values_name_the_right_ones(monkeypatch, capsys, override, says):
    assert run(monkeypatch, "train", "lab_grpo", "--dry-run", override) == 2
    assert says in one_line(capsys)


def test_an_unknown_configuration_names_the_nearest(monkeypatch, capsys):
    assert run(monkeypatch, "train", "lab_gpro") == 2
    assert "lab_grpo" in one_line(capsys)


def test_an_empty_prompt_file(monkeypatch, capsys, tmp_path, checkpoint):
    (tmp_path / "prompts.txt").write_text("\n")
    source = f"prompts.source={tmp_path / 'prompts.txt'}"
    assert run(monkeypatch, "train", "lab_grpo", f"policy={checkpoint}", f"out={tmp_path / 'run'}", source) == 2
    assert "holds no prompt" in one_line(capsys)


def test_a_prompt_that_is_too_long_and_one_that_is_empty(monkeypatch, capsys, checkpoint, tmp_path):
    out = ("--out", str(tmp_path))
    assert run(monkeypatch, "generate", str(checkpoint), "-p", "a photo " * 400, *out) == 2
    assert "Shorten the prompt" in one_line(capsys)
    assert run(monkeypatch, "generate", str(checkpoint), "-p", " ", *out) == 2
    assert "empty" in one_line(capsys)


def test_a_folder_without_a_run_has_no_report(monkeypatch, capsys, tmp_path):
    assert run(monkeypatch, "report", str(tmp_path)) == 2
    one_line(capsys)


def test_check_passes_on_a_random_checkpoint(monkeypatch, capsys, checkpoint):
    assert run(monkeypatch, "check", str(checkpoint), "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"]


@pytest.mark.parametrize("what", ["configs", "rewards", "judges", "benchmarks", "objectives", "policies", "recipes"])
def test_list_names_something(monkeypatch, capsys, what):
    assert run(monkeypatch, "list", what, "--json") == 0
    assert json.loads(capsys.readouterr().out)


def test_a_table_shows_whatever_a_prompt_holds(capsys):
    from thinkdraw.cli.evaluate.tables import print_rows

    print_rows([{"prompt": "a \x1b[2J [red]cat[/red] \ud800 \u202e \\[x]", "value": 1}], "eval [bold]\udfff")
    shown = capsys.readouterr().out
    assert "a \\x1b[2J [red]cat[/red] \\ud800 \\u202e \\[x]" in " ".join(shown.split())
    assert "eval [bold]\\udfff" in shown


def test_a_console_without_a_character_shows_its_number(tmp_path):
    code = "import sys; sys.argv = ['thinkdraw', 'train', '\u2603']; from thinkdraw.cli import main; main()"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1:strict"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, cwd=tmp_path)
    assert ended.returncode == 2 and rb"thinkdraw: config '\u2603' is neither" in ended.stderr


def test_what_is_no_training_is_refused_in_several_processes_and_named(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    store, labels = tmp_path / "store", f"out={tmp_path / 'labels'}"
    verbs = [["sample", "lab", "--out", str(store)], ["score", str(store), "lab-detector"], ["eval", "lab"]]
    for verb in [*verbs, ["generate", "lab", "-p", "a circle"], ["corpus", "write", "lab_verifier_data", labels]]:
        assert run(monkeypatch, *verb) == 2
        assert f"thinkdraw {verb[0]} works in one process, and was started in 4" in one_line(capsys)
    assert run(monkeypatch, "train", "lab_iterate", f"out={tmp_path / 'iterate'}") == 2
    assert "recipe iterate works in one process" in one_line(capsys)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("WORLD_SIZE", "1")  # torchrun with one process
    assert run(monkeypatch, "list", "recipes") == 0
