"""Monitors are looked at and never optimised, and where a reward parts from them the run says so, or ends."""

import pytest
import torch
from tests.training.helpers import LowCodes, grpo_config, policy_dir, rows_without_times
from torch import Tensor

from thinkdraw.recipes import grpo
from thinkdraw.recipes.phase.monitor import OveroptimisationMonitor, ValidationSettings
from thinkdraw.recipes.phase.validation import Validation
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.types import Prompt, Rollouts, Sampling


class OtherCodes(LowCodes):
    """Falls when LowCodes rises."""

    name = "other-codes"

    def __call__(self, rollouts: Rollouts) -> Tensor:
        return 1 - super().__call__(rollouts)


MONITOR = {"name": "tests.recipes.phase.test_validation:OtherCodes"}
KEY = f"monitor/{MONITOR['name']}"


def watch_of(scores: list[tuple[float | None, float | None]], **settings) -> tuple[OveroptimisationMonitor, list[bool]]:
    watch = OveroptimisationMonitor(ValidationSettings.model_validate({"monitors": [MONITOR], **settings}))
    said = [watch.update({"validation_score": o, KEY: m}, step) is not None for step, (o, m) in enumerate(scores)]
    return watch, said


def test_they_part_when_the_monitor_has_fallen_from_its_peak_and_the_reward_has_not():
    #                       rises       peak        within 0.02  parted      reward fell too
    _, said = watch_of([(0.1, 0.3), (0.2, 0.40), (0.3, 0.39), (0.4, 0.37), (0.15, 0.30)])
    assert said == [False, False, False, True, False]


def test_a_run_stops_after_so_many_partings_in_a_row_and_a_recovery_starts_the_count_anew():
    watch, _ = watch_of([(0.1, 0.5), (0.2, 0.4), (0.3, 0.5), (0.4, 0.4)], stop_after=2)
    assert watch.num_diverged == 1 and not watch.should_stop
    watch, _ = watch_of([(0.1, 0.5), (0.2, 0.4), (0.3, 0.4)], stop_after=2)
    assert watch.should_stop and watch.peak["step"] == 0


def test_no_verdict_is_no_parting():
    _, said = watch_of([(0.1, 0.5), (0.2, None), (None, 0.1)])
    assert not any(said)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"stop_after": 1}, "needs a monitor"),
        ({"monitors": [MONITOR], "best_by": "lab-clip"}, "not one of the monitors"),
        ({"monitors": [MONITOR, MONITOR]}, "share a column: give each its own label"),
    ],
)
def test_a_watch_without_its_monitor_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        ValidationSettings.model_validate(settings)


def test_monitors_of_one_reward_have_columns_by_their_labels():
    twice = ValidationSettings.model_validate({"monitors": [MONITOR, MONITOR | {"label": "again"}], "best_by": "again"})
    assert [monitor.column for monitor in twice.monitors] == [MONITOR["name"], "again"]


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    return policy_dir(tmp_path_factory.mktemp("policy"))


def hacked(folder, policy, **changes) -> grpo.GrpoConfig:
    validation = {"every": 1, "prompts": {"split": "validation", "count": 8}, "monitors": [MONITOR]}
    values = {
        "max_steps": 12, "prompts_per_phase": 4, "group_size": 8, "sampling": Sampling(thought="off"), "micro_rows": 32,
        "optimiser": {"learning_rate": 3e-3, "warmup_steps": 0}, "entropy": {"mode": "off"},
        "validation": validation | changes.pop("validation", {}),
    }  # fmt: skip
    return grpo_config(folder, policy, **(values | changes))


def test_a_monitor_moves_nothing_and_a_hacked_run_ends_at_its_peak(tmp_path, policy, capsys):
    plain = grpo.run(hacked(tmp_path / "plain", policy, validation={"monitors": []}, max_steps=2))
    watched = grpo.run(hacked(tmp_path / "watched", policy, validation={"stop_after": 2, "best_by": MONITOR["name"]}))
    rows, alone = (rows_without_times(run) for run in (watched, plain))
    assert [row["loss"] for row in rows[:2]] == [row["loss"] for row in alone]
    assert len(rows) < 12 and rows[-1]["parted"] == 2 and "exploiting mistakes of the judge" in capsys.readouterr().err
    peak = max(rows, key=lambda row: row[KEY])
    assert (watched / "checkpoints" / "best").read_text().strip() == f"step_{peak['step']:06d}"
    assert rows[-1]["validation_score"] > peak["validation_score"] and rows[-1][KEY] < peak[KEY] - 0.02

    grpo.run(hacked(tmp_path / "watched", policy, validation={"stop_after": 2, "best_by": MONITOR["name"]}))
    assert MetricsLog.read(watched / "metrics.jsonl")[-1]["step"] == rows[-1]["step"]
    assert torch.isfinite(torch.tensor(rows[-1][KEY]))


def test_the_last_phase_is_validated_and_can_be_the_best(tmp_path, policy):
    run = grpo.run(hacked(tmp_path, policy, validation={"every": 2, "monitors": []}, max_steps=3))
    rows = MetricsLog.read(run / "metrics.jsonl")
    assert [row.get("validation_score") is not None for row in rows] == [False, True, True]
    assert [row["pictures_validated"] for row in rows] == [0, 8, 16]


def test_a_validation_file_is_used_as_far_as_count_says_and_prompts_of_both_are_counted(tmp_path, capsys):
    file = tmp_path / "v.txt"
    file.write_text("".join(f"a photo of {n} cats\n" for n in range(10)))
    config = grpo_config(tmp_path, "lab", validation={"every": 1, "prompts": {"source": str(file), "count": 4}})
    validation = Validation(config)
    assert [prompt.text.split()[3] for prompt in validation.prompts] == ["0", "2", "5", "7"]
    assert "validation prompts of" in (said := capsys.readouterr().err) and "10 read, 4 used, spread evenly" in said
    validation.warn_of_shared_prompts([Prompt("a photo of 2 cats"), Prompt("a photo of 3 cats")])
    assert "4 read, 1 of them trained on" in capsys.readouterr().err
    validation.warn_of_shared_prompts([Prompt("a photo of 3 cats")])
    assert not capsys.readouterr().err
