"""Runs are compared only where they began alike, and those of several seeds are one row with its costs."""

import json
from pathlib import Path

import pytest
import yaml

from thinkdraw.errors import UserError
from thinkdraw.runtime.checkpoint import MARKER
from thinkdraw.studies import compare
from thinkdraw.studies.compare import CompareConfig, FinishedRun, refuse_unlike
from thinkdraw.studies.comparison_table import differences_table, draw, table
from thinkdraw.training.ledger import COSTS, Ledger

ALIKE = {"base": "abc", "prompts": "0123", "sampling": {"thought": "inline"}}


def finished(
    folder: Path, seed: int = 0, lr: float = 1e-4, started: dict | None = None, steps: tuple = (1, 2), **spent: float
) -> Path:
    folder.mkdir(parents=True)
    config = {"recipe": "grpo", "out": str(folder), "seed": seed, "policy": "lab", "optimiser": {"learning_rate": lr}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "started.json").write_text(json.dumps(started or ALIKE))
    rows = [{"step": 1, "pictures_sampled": 8}, {"step": 2, "seconds": 3.5, "pictures_sampled": 16, **spent}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in steps:
        (folder / "checkpoints" / f"step_{step:06d}").mkdir(parents=True)
        (folder / "checkpoints" / f"step_{step:06d}" / MARKER).touch()
    return folder


def test_a_run_is_known_by_what_it_began_with_and_what_it_cost(tmp_path):
    run = FinishedRun.read(finished(tmp_path / "grpo" / "seed_1", seed=1, sequences_trained=12))
    assert run.started == ALIKE and run.name == "grpo"
    assert run.spent == dict.fromkeys(COSTS, 0) | {"pictures_sampled": 16, "sequences_trained": 12, "seconds": 3.5}


def test_a_run_is_judged_at_its_last_checkpoint_and_charged_up_to_the_one_that_is_judged(tmp_path):
    # Validated after step 1 alone, as a run of 16 phases with validation every 10 was: `best` points there.
    folder = finished(tmp_path / "grpo")
    (folder / "checkpoints" / "best").write_text("step_000001\n")
    last, best = FinishedRun.read(folder), FinishedRun.read(folder, "best")
    assert (last.checkpoint.name, last.spent["pictures_sampled"]) == ("step_000002", 16)
    assert (best.checkpoint.name, best.spent["pictures_sampled"]) == ("step_000001", 8)


def test_the_best_checkpoint_is_judged_only_where_all_runs_chose_it_by_the_same_validation(tmp_path):
    one, two = finished(tmp_path / "grpo"), finished(tmp_path / "dpo")
    (one / "checkpoints" / "best").write_text("step_000001\n")
    asked = {"runs": [one, two], "out": tmp_path / "out", "select": "best"}
    with pytest.raises(UserError, match=r"dpo never validated.*select=last"):
        compare.run(CompareConfig.model_validate(asked))
    (two / "checkpoints" / "best").write_text("step_000002\n")
    config = yaml.safe_load((two / "config.yaml").read_text()) | {"validation": {"every": 5}}
    (two / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"grpo and .*dpo validated with different settings"):
        compare.run(CompareConfig.model_validate(asked))


def test_runs_that_differ_in_the_seed_alone_are_one_row(tmp_path, monkeypatch):
    folders = [finished(tmp_path / "a" / f"seed_{seed}", seed) for seed in (0, 1)] + [finished(tmp_path / "b", lr=1e-5)]
    folders += [finished(tmp_path / "other" / "b", lr=1e-6)]
    seen = {}
    monkeypatch.setattr(compare, "compare_groups", lambda groups, *rest: seen.update(groups) or tmp_path)
    compare.run(CompareConfig(runs=folders, out=tmp_path / "out"))
    assert {name: len(runs) for name, runs in seen.items()} == {"a": 2, "b": 1, str(tmp_path / "other" / "b"): 1}


@pytest.mark.parametrize(("fact", "other"), [("base", "xyz"), ("prompts", "9999"), ("sampling", {"thought": "off"})])
def test_runs_that_began_otherwise_are_refused_by_name_unless_allowed(tmp_path, fact, other):
    one = FinishedRun.read(finished(tmp_path / "one"))
    two = FinishedRun.read(finished(tmp_path / "two", started=ALIKE | {fact: other}))
    with pytest.raises(UserError, match=rf"one and .*two differ in {fact}.*allow=\[{fact}\]"):
        refuse_unlike([one, two])
    refuse_unlike([one, two], [fact])


def test_a_folder_that_is_no_run_and_a_run_without_a_step_say_so(tmp_path):
    with pytest.raises(UserError, match="not a run that can be compared"):
        FinishedRun.read(tmp_path / "nothing")
    (finished(tmp_path / "fresh") / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match=r"no step in metrics\.jsonl yet"):
        FinishedRun.read(tmp_path / "fresh")


def row(value: float, **costs: float) -> dict:
    found = {"value": value, "low": value - 0.02, "high": value + 0.02, "per_seed": [value]}
    return dict.fromkeys((*COSTS, "seconds"), 0) | costs | {
        "test": found, "pictures_drawn_per_test_picture": 1, "seeds": [0] if costs else [],
    }  # fmt: skip


def test_the_table_prints_what_failed_and_what_a_row_costs_when_it_is_used(tmp_path):
    rows = {
        "untrained": row(0), "best of 4": row(0.3) | {"pictures_drawn_per_test_picture": 4},
        "good": row(0.1, pictures_sampled=4096, sequences_trained=2560),
        "useless": row(0.01, pictures_sampled=4096, sequences_trained=2560),
    }  # fmt: skip
    text = table(rows)
    assert "| good | +10.0 | +8.0 – +12.0 | +10.0 | 4,096 | 2,560 |" in text
    assert "pictures validated" not in text and "One training seed, so its interval is over prompts alone: good" in text
    assert "Not above the untrained policy (interval reaches 0): useless." in text
    assert "best of 4 draws 4 pictures" in text
    draw(rows, tmp_path / "plot.svg", ["pictures_sampled", "sequences_trained", "seconds"])
    drawn = (tmp_path / "plot.svg").read_text(encoding="utf-8")
    assert drawn.count("<title>good: 10 [8, 12]</title>") == 3 and drawn.count("<title>best of 4</title>") == 3


def test_every_two_rows_are_compared_with_each_other():
    pair = {"row": "dpo", "minus": "grpo", "test": {"value": 0.02, "low": -0.01, "high": 0.05}}
    assert "| dpo − grpo | +2.0 [-1.0, +5.0] |" in differences_table([pair])
    assert differences_table([]) == ""


def test_a_ledger_adds_up_and_survives_a_checkpoint():
    ledger = Ledger()
    ledger.add(pictures_sampled=8, seconds_learning=0.5)
    ledger.add(pictures_sampled=8, judge_calls=16.0)
    again = Ledger.of({"ledger": ledger.row()})
    assert again == Ledger(pictures_sampled=16, judge_calls=16, seconds_learning=0.5)
    with pytest.raises(AttributeError):
        again.add(picture_sampled=1)
