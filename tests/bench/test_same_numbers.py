import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from bench import same_numbers
from safetensors.torch import save_file


def recorded(
    root: Path, *, score: float = math.nan, key: str = "mean", weight: float = 0.5, moment: str = "exp_avg"
) -> Path:
    """A run folder as `record` leaves it: a metric, a place, times, a table with JSON in it, and a trainer's state."""
    run = root / "lab"
    run.mkdir(parents=True)
    (root / "lab.done").touch()
    row = {"step": 1, key: score, "out": f"{run}", "seconds": id(root)}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (run / "state.json").write_text(json.dumps({"best": None, "cursor": 3}))
    pq.write_table(pa.table({"score": [score, 1.0], "parts": [json.dumps({key: 0.1}), ""]}), run / "scores.parquet")
    state = {f"state.'weights'.0.'{moment}'": torch.tensor([weight, math.nan]), "step": torch.tensor(3.0)}
    save_file(state, run / "trainer.safetensors")
    return root


def differences(capsys, before: Path, after: Path) -> tuple[int, str]:
    code = same_numbers.compare(before, after, [])
    return code, capsys.readouterr().out


def test_equal_runs_in_two_places_differ_in_nothing_whatever_their_times(tmp_path, capsys):
    code, told = differences(capsys, recorded(tmp_path / "one"), recorded(tmp_path / "another"))
    assert code == 0
    assert "1 commands, 4 files compared, 0 differences" in told


def test_a_changed_number_is_found_in_every_kind_of_file(tmp_path, capsys):
    before = recorded(tmp_path / "before", score=0.1)
    after = recorded(tmp_path / "after", score=0.1 + 1e-17 + 2e-17, weight=0.75)  # 0.1 + 1.4e-17: the next double
    code, told = differences(capsys, before, after)
    assert code == 1
    assert "metrics.jsonl[0].mean: 0.1 before, 0.10000000000000003 after" in told
    assert "scores.parquet.score.rows[0]: 0.1 before" in told
    assert "trainer.safetensors: tensor state.'weights'.0.'exp_avg' differs by up to" in told
    assert "3 differences" in told


def test_a_verdict_that_is_missing_is_no_number(tmp_path, capsys):
    code, told = differences(capsys, recorded(tmp_path / "before"), recorded(tmp_path / "after", score=0.0))
    assert code == 1
    assert "metrics.jsonl[0].mean: nan before, 0.0 after" in told


def test_a_renamed_key_is_a_difference_until_the_table_says_so(tmp_path, capsys, monkeypatch):
    before = recorded(tmp_path / "before", key="mean", moment="exp_avg")
    after = recorded(tmp_path / "after", key="reward_mean", moment="first")
    code, told = differences(capsys, before, after)
    assert code == 1
    assert "metrics.jsonl[0].mean only before" in told
    assert "tensor state.'weights'.0.'first' only after" in told
    monkeypatch.setitem(same_numbers.RENAMED, "mean", "reward_mean")
    monkeypatch.setitem(same_numbers.RENAMED, "exp_avg", "first")
    assert differences(capsys, before, after)[0] == 0


def test_a_key_that_is_gone_may_be_gone_and_nothing_else(tmp_path, capsys, monkeypatch):
    before, after = recorded(tmp_path / "before"), recorded(tmp_path / "after")
    (after / "lab" / "state.json").write_text(json.dumps({"cursor": 3}))
    assert differences(capsys, before, after)[0] == 1
    monkeypatch.setitem(same_numbers.RENAMED, "best", None)
    assert differences(capsys, before, after)[0] == 0


@pytest.mark.parametrize("missing", ["scores.parquet", "trainer.safetensors"])
def test_a_file_of_one_side_only_is_a_difference(tmp_path, capsys, missing):
    before, after = recorded(tmp_path / "before"), recorded(tmp_path / "after")
    (after / "lab" / missing).unlink()
    code, told = differences(capsys, before, after)
    assert code == 1
    assert f"lab/{missing}: only in {before}" in told


def test_a_tensor_of_another_dtype_is_a_difference_though_its_values_are_equal(tmp_path, capsys):
    before, after = recorded(tmp_path / "before"), recorded(tmp_path / "after")
    for root, dtype in ((before, torch.float32), (after, torch.bfloat16)):
        save_file({"weight": torch.ones(2, dtype=dtype)}, root / "lab" / "model.safetensors")
    code, told = differences(capsys, before, after)
    assert code == 1
    assert "tensor weight is torch.float32 [2] before, torch.bfloat16 [2] after" in told


def test_a_command_of_one_side_only_and_nothing_at_all_are_no_agreement(tmp_path, capsys):
    before = recorded(tmp_path / "before")
    (tmp_path / "empty").mkdir()
    assert differences(capsys, before, tmp_path / "empty")[0] == 1
    assert differences(capsys, tmp_path / "empty", tmp_path / "empty")[0] == 1


def test_a_command_that_fails_is_reported_and_begins_anew(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(same_numbers, "COMMANDS", {"bad": "-c 'raise SystemExit(3)'", "good": "-c 'print(1)' {out}"})
    (tmp_path / "good").mkdir()
    assert same_numbers.record(tmp_path, ["env", "python3"], []) == 1
    assert capsys.readouterr().out == "bad: exit 3\n\ngood: exit 0\n"
    assert not (tmp_path / "good").exists()  # half of an earlier attempt was taken away
    assert [path.name for path in tmp_path.glob("*.done")] == ["good.done"]
