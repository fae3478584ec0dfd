"""Monitors that need no judge, by hand; alarms that ring on a hacked run and are quiet on a healthy one."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.helpers import grpo_config

from thinkdraw.recipes import grpo
from thinkdraw.recipes.phase.hacking.alarms import DIVERGED, FIRST, LATEST, RULES, Alarms, alarms
from thinkdraw.recipes.phase.hacking.pictures import PIXEL_MEASURES, group_diversity, group_std, pixel_measures
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.display import Display

RUNS = json.loads((Path(__file__).parent / "hacking_runs.json").read_text())


def painted(*colours: tuple[int, int, int]) -> torch.Tensor:
    """A picture of 8 × 8 pixels in stripes of these colours, left to right."""
    picture = torch.zeros(8, 8, 3, dtype=torch.uint8)
    for i, colour in enumerate(colours):
        picture[:, i * 8 // len(colours) : (i + 1) * 8 // len(colours)] = torch.tensor(colour, dtype=torch.uint8)
    return picture


def test_measures_of_pictures_equal_those_by_hand():
    black, white, red = (0, 0, 0), (255, 255, 255), (255, 0, 0)
    pictures = torch.stack([painted(black), painted(white), painted(black, white), painted(black, white, red, black)])
    measured = {name: values.tolist() for name, values in pixel_measures(pictures).items()}
    assert tuple(measured) == PIXEL_MEASURES
    assert measured["dark_frac"] == pytest.approx([1, 0, 0.5, 0.5])
    # A stripe's last column differs from its neighbour to the right: 1 and 3 of 8 columns.
    assert measured["edge_density"] == pytest.approx([0, 0, 1 / 8, 3 / 8])
    # 1 bit for two equal shares; shares 1/2, 1/4, 1/4 have 1.5 bits.
    assert measured["colour_entropy"] == pytest.approx([0, 0, 1, 1.5], abs=1e-6)
    assert measured["brightness"] == pytest.approx([0, 1, 0.5, (1 + 0.299) / 4], abs=1e-6)
    assert measured["saturation"] == pytest.approx([0, 0, 0, 1 / 4])


def test_more_pictures_than_are_measured_at_once_are_measured_alike():
    pictures = torch.randint(256, (70, 8, 8, 3), dtype=torch.uint8)
    whole = pixel_measures(pictures)
    for i in (0, 31, 32, 69):
        alone = pixel_measures(pictures[i : i + 1])
        assert all(alone[name].item() == pytest.approx(whole[name][i].item()) for name in PIXEL_MEASURES)


def test_diversity_is_0_for_copies_and_1_between_black_and_white():
    black, white = painted((0, 0, 0)), painted((255, 255, 255))
    # Of three pairs of (black, black, white) two differ by 1.
    groups = torch.stack([black, black, black, black, black, white])
    assert group_diversity(groups, 3).tolist() == pytest.approx([0, 2 / 3])


def test_the_spread_of_rewards_leaves_out_rows_without_a_verdict():
    rewards = torch.tensor([0.0, 1.0, math.nan, 1.0, math.nan, math.nan])
    spread = group_std(rewards, 3)
    assert spread[0].item() == pytest.approx(math.sqrt(0.5)) and spread[1].isnan()


def series(column: str, values: list[float]) -> list[dict]:
    return [{"step": 2 * i + 2, column: value} for i, value in enumerate(values)]


def test_an_alarm_rings_once_the_latest_phases_are_beyond_the_limit_and_says_since_when():
    values = [0.16, 0.15, 0.16, 0.17, 0.16, 0.15, 0.16] + [0.01] * 4
    rows = series("pictures/edge_density", values)
    # The median of three phases is 0.01 with the second low one, the ninth phase, which ends at step 18.
    assert [bool(alarms(rows[:n])) for n in range(7, 12)] == [False, False, True, True, True]
    (alarm,) = alarms(rows)
    assert alarm.since == 18 and "fell from 0.16 to 0.01: pictures become empty" in alarm.sentence
    assert alarms(rows + series("pictures/edge_density", [0.15] * 3)) == []


@pytest.mark.parametrize("column", [rule.column for rule in RULES])
def test_noise_and_a_column_without_values_ring_nothing(column):
    rng = np.random.default_rng(0)
    noisy = np.minimum(
        1, 0.3 * np.exp(0.4 * rng.standard_normal(300))
    )  # a phase differs from the next by half of its value
    assert sum(bool(alarms(series(column, noisy[i : i + 30].tolist()))) for i in range(0, 270, 10)) == 0
    assert alarms(series(column, [0.3] * (FIRST + LATEST - 1))) == []
    assert alarms([{"step": i, column: None} for i in range(20)]) == []


def test_a_share_of_nearly_nothing_may_double():
    assert alarms(series("pictures/dark_frac", [0.0005] * 8 + [0.002] * 8)) == []
    assert alarms(series("pictures/dark_frac", [0.1] * 8 + [0.4] * 8)) != []


def test_the_recorded_hacked_run_rings_and_the_healthy_one_is_quiet_at_every_step():
    first: dict[str, int] = {}
    for n in range(1, len(RUNS["hacked"]) + 1):
        for alarm in alarms(RUNS["hacked"][:n]):
            first.setdefault(alarm.column, RUNS["hacked"][n - 1]["step"])
    assert first == {"monitor/lab-detector": 10, "pictures/colour_entropy": 13}
    healthy = RUNS["healthy"]
    assert len(healthy) == 55 and not [n for n in range(1, 56) if alarms(healthy[:n])]


def test_reward_and_held_out_judge_must_diverge_several_times_in_a_row():
    rows = [{"step": i, "monitor/judge": 0.5 - 0.1 * i, "parted": i} for i in range(DIVERGED)]
    assert not alarms(rows)
    (alarm,) = alarms([*rows, {"step": 9}, {"step": 10, "monitor/judge": 0.1, "parted": DIVERGED}, {"step": 11}])
    assert alarm.since == 10 and "judge, which is not optimised, fell from 0.5 to 0.1" in alarm.sentence


def test_an_alarm_is_one_printed_line_with_what_to_look_at(tmp_path, capfd):
    watching = Alarms(series("pictures/edge_density", [0.16] * 8), tmp_path)
    display = Display("grpo", 20, 1)
    counts = [watching.update(display, {"step": 20 + i, "pictures/edge_density": 0.0})["alarms"] for i in range(4)]
    assert counts == [0, 1, 1, 1]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("warning: alarm since step 21") and f"thinkdraw report {tmp_path}" in line


def test_a_phase_of_grpo_is_measured_and_a_run_that_goes_on_remembers_its_first_phases(tmp_path, policy):
    run = grpo.run(grpo_config(tmp_path, policy, max_steps=1))
    grpo.run(grpo_config(tmp_path, policy, max_steps=2))
    rows = MetricsLog.read(run / "metrics.jsonl")
    assert len(rows) == 2
    for row in rows:
        assert all(0 <= row[rule.column] <= 6 for rule in RULES) and row["alarms"] == 0
    assert len(Alarms.of(run).rows) == 2
