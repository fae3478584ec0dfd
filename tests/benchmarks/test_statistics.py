import math

import numpy as np
import pytest
from bench.coverage import coverage
from scipy import stats

from thinkdraw.benchmarks.statistics import (
    PromptVerdicts,
    Score,
    auroc,
    difference_over_seeds,
    mean_interval,
    paired_difference,
    per_task,
    prompt_mean_score,
    score_over_seeds,
    task_mean_score,
    wilson,
)

NAN = math.nan


def random_rows(num_prompts, seed=0, tasks=("count", "color"), chance=0.5):
    rng = np.random.default_rng(seed)
    return [(tasks[i % len(tasks)], (rng.random(4) < chance).astype(float)) for i in range(num_prompts)]


def test_overall_is_the_unweighted_mean_of_task_scores():
    # count: 1 of 2 pictures; color: 6 of 6; the mean over pictures would be 7/8
    rows = [("count", [1, 0]), ("color", [1, 1]), ("color", [1, 1, 1, 1])]
    score = task_mean_score(rows)
    assert score.value == (1 / 2 + 1) / 2
    assert (score.pictures, score.prompts, score.num_no_verdict) == (8, 3, 0)


def test_a_task_score_is_the_mean_over_pictures_not_over_prompts():
    # 1 of 1 and 0 of 3: pictures 1/4, prompts would be 1/2
    assert task_mean_score([("count", [1]), ("count", [0, 0, 0])]).value == 1 / 4


def test_a_prompt_may_count_once_however_many_of_its_pictures_have_a_verdict():
    rows = [("", [1.0, math.nan, math.nan, math.nan]), ("", [0.0, 0.0, 0.5, 0.5]), ("", [math.nan])]
    score = prompt_mean_score(rows)
    assert score.value == pytest.approx((1 + 0.25) / 2)
    assert (score.pictures, score.prompts, score.num_no_verdict) == (5, 2, 4)
    whole = [("", [1.0, 0.0]), ("", [0.0, 0.0]), ("", [1.0, 1.0])]
    assert prompt_mean_score(whole) == task_mean_score(whole)


def test_a_picture_without_verdict_is_counted_and_left_out_and_never_0():
    score = task_mean_score([("count", [1, NAN]), ("count", [1, NAN]), ("count", [NAN, NAN])])
    assert (score.value, score.high) == (1, 1) and score.low < 1
    assert (score.pictures, score.prompts, score.num_no_verdict) == (2, 2, 4)
    assert "4 without verdict" in str(score)


def test_a_task_without_any_verdict_makes_the_overall_score_nan():
    rows = [("count", [NAN]), ("color", [1, 0])]
    overall, tasks = task_mean_score(rows), per_task(rows)
    assert math.isnan(overall.value) and math.isnan(overall.low) and overall.num_no_verdict == 1
    assert math.isnan(tasks["count"].value) and tasks["color"].value == 0.5


def test_no_prompts_is_an_error():
    with pytest.raises(ValueError, match="at least one prompt"):
        task_mean_score([])


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    rows = random_rows(60)
    assert task_mean_score(rows, seed=3) == task_mean_score(rows, seed=3)
    assert task_mean_score(rows, seed=3, num_resamples=500) != task_mean_score(rows, seed=4, num_resamples=500)


def test_the_interval_of_a_task_does_not_depend_on_other_tasks():
    rows = random_rows(40)
    assert per_task(rows)["count"] == per_task([row for row in rows if row[0] == "count"])["count"]


def test_tasks_are_redrawn_independently_even_if_their_verdicts_are_the_same():
    # two independent tasks of equal spread: the error of their mean is 1 / sqrt(2) of one task's
    verdicts = [[i % 3 / 2] for i in range(200)]
    rows = [(task, found) for task in ("count", "color") for found in verdicts]
    overall, single = task_mean_score(rows), per_task(rows)["count"]
    assert (overall.high - overall.low) / (single.high - single.low) == pytest.approx(1 / math.sqrt(2), rel=0.05)


def test_the_bootstrap_error_matches_the_formula_for_independent_prompts():
    # s.e. of a mean over n prompts = std / sqrt(n); for two tasks of equal weight, sqrt(se1^2 + se2^2) / 2
    rows = random_rows(500, seed=1)
    errors = []
    for task in ("count", "color"):
        means = [np.mean(verdicts) for name, verdicts in rows if name == task]
        errors.append(np.std(means) / math.sqrt(len(means)))
    expected = math.hypot(*errors) / 2
    score = task_mean_score(rows)
    assert (score.high - score.low) / (2 * 1.96) == pytest.approx(expected, rel=0.05)
    assert score.low < score.value < score.high


def test_pictures_that_agree_within_prompts_widen_the_interval():
    # the same 50 % of pictures; alike within a prompt, the four pictures are worth one: s.e. twice as wide or more
    alike = [("t", [i % 2] * 4) for i in range(100)]
    mixed = [("t", [0, 1, 0, 1]) for _ in range(100)]
    assert 0.48 < task_mean_score(mixed).low < 0.5
    assert task_mean_score(alike).high - task_mean_score(alike).low == pytest.approx(2 * 1.96 * 0.05, rel=0.08)


def test_redrawing_within_tasks_keeps_the_spread_between_tasks_out_of_the_interval():
    score = task_mean_score([("easy", [1])] * 300 + [("hard", [0])] * 300)
    assert score.value == 0.5 and 0.49 < score.low < score.high < 0.51


def test_intervals_do_not_depend_on_the_block_size(monkeypatch):
    rows = random_rows(30)
    whole = task_mean_score(rows, num_resamples=1000)
    monkeypatch.setattr("thinkdraw.benchmarks.statistics._BLOCK_DRAWS", 15 * 64)
    assert task_mean_score(rows, num_resamples=1000) == whole


def test_the_interval_covers_the_truth_about_95_times_in_100():
    covered = 0
    for seed in range(200):
        score = task_mean_score(random_rows(100, seed=seed, chance=0.7), seed=seed, num_resamples=400)
        covered += score.low <= 0.7 <= score.high
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize("right", [0, 1])
def test_twelve_prompts_that_agree_have_jeffreys_interval(right):
    # the quantiles of Beta(12.5, .5), and 1 itself: .81 to 1, near the rule of three's 1 - 3/12 = .75 on one side
    score = task_mean_score([("t", [right, right])] * 12)
    low, high = (score.low, score.high) if right else (1 - score.high, 1 - score.low)
    assert (low, high) == (pytest.approx(stats.beta.ppf(0.025, 12.5, 0.5), abs=0.01), 1)


def test_a_task_that_agrees_keeps_its_doubt_in_the_mean_of_tasks():
    varied = [("b", [i % 2]) for i in range(12)]
    alone, both = per_task(varied)["b"], task_mean_score([("a", [1])] * 12 + varied)
    assert both.high - both.low > (alone.high - alone.low) / 2


def test_one_prompt_says_nothing_of_others_and_equal_numbers_of_no_known_range_say_nothing_of_their_spread():
    alone = task_mean_score([("t", [1, 1])])
    assert alone.value == 1 and math.isnan(alone.low) and math.isnan(alone.high)
    assert str(alone) == "1.000 interval not known (2 pictures, 1 prompts)"
    assert all(math.isnan(score.low) for score in per_task([("a", [1]), ("b", [0])]).values())
    over_seeds = difference_over_seeds([[("t", [1])], [("t", [0])]], [[("t", [0])]])
    assert over_seeds.value == 0.5 and math.isnan(over_seeds.low)
    assert math.isnan(mean_interval([7.0, 7.0, 7.0]).high)


def test_identical_inputs_differ_by_0_with_the_interval_that_so_many_prompts_allow():
    rows = [*random_rows(50), ("count", [NAN, 1])]
    difference = paired_difference(rows, rows)
    assert difference.value == 0 and -0.08 < difference.low < 0 < difference.high < 0.08
    assert (difference.prompts, difference.num_no_verdict) == (51, 2)


def test_a_constant_gain_on_every_prompt_has_a_narrow_interval():
    b = [("t", [value, value]) for value in np.linspace(0, 0.5, 200)]
    a = [(task, [value + 0.25 for value in verdicts]) for task, verdicts in b]
    difference = paired_difference(a, b)
    assert difference.value == pytest.approx(0.25) and 0.22 < difference.low < 0.25 < difference.high < 0.27


def test_the_paired_difference_is_antisymmetric_and_agrees_with_the_scores():
    a, b = random_rows(60, seed=1), random_rows(60, seed=2)
    forward, backward = paired_difference(a, b), paired_difference(b, a)
    assert forward.value == pytest.approx(task_mean_score(a).value - task_mean_score(b).value)
    assert (forward.low, forward.high) == pytest.approx((-backward.high, -backward.low))


def test_a_prompt_judged_on_one_side_only_is_left_out_of_the_difference():
    difference = paired_difference([("t", [1]), ("t", [0])], [("t", [0]), ("t", [NAN])])
    assert (difference.value, difference.prompts, difference.num_no_verdict) == (1, 1, 1)


def test_with_one_seed_a_side_a_trained_difference_is_the_paired_one_but_for_the_shape_of_its_interval():
    a, b = random_rows(60, 1), random_rows(60, 2, chance=0.4)
    one, paired = difference_over_seeds([a], [b]), paired_difference(a, b)
    assert one.value == paired.value and one.pictures == paired.pictures
    assert (one.low, one.high) == pytest.approx((paired.low, paired.high), abs=0.01)


def test_the_interval_of_a_trained_difference_covers_the_spread_between_seeds():
    # Seeds differ by sd 0.06, prompts by little: the interval over prompts alone misses the truth, 0, in a third of studies.
    rng = np.random.default_rng(0)
    hits = {"prompts": 0, "prompts and seeds": 0}
    base = [("", [0.5] * 4)] * 48
    for study in range(150):
        chances = rng.normal(0.5, 0.06, size=3)
        seeds = [[("", (rng.random(4) < chance).astype(float)) for _ in range(48)] for chance in chances]
        pooled = [("", np.concatenate([rows[i][1] for rows in seeds])) for i in range(48)]
        for name, found in (
            ("prompts", paired_difference(pooled, base, seed=study, num_resamples=200)),
            ("prompts and seeds", difference_over_seeds(seeds, [base], seed=study, num_resamples=200)),
        ):
            hits[name] += found.low <= 0 <= found.high
    assert hits["prompts"] / 150 < 0.8 and hits["prompts and seeds"] / 150 > 0.92


def test_a_trained_difference_is_by_hand_what_students_t_says():
    # Many prompts, all alike, so next to no variance over prompts: seeds .4, .5, .6. s = .1, half = t(2) · .1 / sqrt(3).
    seeds = [[("", [value])] * 3000 for value in (0.4, 0.5, 0.6)]
    half = stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
    difference = difference_over_seeds(seeds, [[("", [0.3])] * 3000], num_resamples=50)
    score = score_over_seeds(seeds, num_resamples=50)
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-3)
    assert (score.value, score.low, score.high) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-3)
    with pytest.raises(ValueError, match="same prompts"):
        difference_over_seeds([[("", [1])], [("x", [1])]], [[("", [1])]])


def test_what_paired_seeds_share_cancels():
    # The luck of a seed moves both sides alike: .4, .5, .6 and .3, .4, .5 differ by .1 with every seed.
    a, b = ([[("", [value + gain])] * 3000 for value in (0.3, 0.4, 0.5)] for gain in (0.1, 0))
    paired, apart = (
        difference_over_seeds(a, b, paired_seeds=is_paired, num_resamples=50) for is_paired in (True, False)
    )
    assert paired.high - paired.low < 0.01 and apart.high - apart.low > 0.4
    with pytest.raises(ValueError, match="3 training seeds and b has 1"):
        difference_over_seeds(a, b[:1], paired_seeds=True)


def test_intervals_over_seeds_hold_the_truth_in_simulated_studies():
    held = coverage(prompts=48, seeds=3, sd=0.03, studies=100)
    assert held["prompts alone"] < 0.9
    assert held["prompts and seeds"] >= 0.93 and held["prompts and paired seeds"] >= 0.93


def test_a_paired_difference_refuses_other_prompts():
    with pytest.raises(ValueError, match="same prompts"):
        paired_difference([("t", [1])], [("t", [1]), ("t", [1])])
    with pytest.raises(ValueError, match="same prompts"):
        paired_difference([PromptVerdicts("t", [1], "a dog")], [PromptVerdicts("t", [1], "a cat")])


def test_mean_interval_is_the_mean_and_counts_missing_values():
    score = mean_interval([1.0, 2.0, NAN, 6.0], seed=1)
    assert score.value == 3 and score.low < 3 < score.high
    assert (score.pictures, score.prompts, score.num_no_verdict) == (3, 3, 1)


def test_a_score_prints_its_interval_and_size():
    assert str(Score(0.5, 0.25, 0.75, 8, 2)) == "0.500 [0.250, 0.750] (8 pictures, 2 prompts)"


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 0, 1, 1], [1, 2, 3, 4], 1.0),
        ([1, 1, 0, 0], [1, 2, 3, 4], 0.0),
        ([0, 1, 0, 1], [1, 1, 1, 1], 0.5),
        ([0, 1, 1], [2, 2, 3], 0.75),  # pairs: a tie (1/2) and a win (1)
        ([0, 1, 1], [2, 3, NAN], 1.0),
    ],
)
def test_auroc_is_the_share_of_pairs_in_order(labels, scores, expected):
    assert auroc(labels, scores) == expected


def test_auroc_agrees_with_the_mann_whitney_statistic_under_ties():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(200) < 0.3, rng.integers(0, 10, 200)
    wins = stats.mannwhitneyu(scores[labels], scores[~labels]).statistic
    assert auroc(labels, scores) == pytest.approx(wins / (labels.sum() * (~labels).sum()))


def test_auroc_of_one_kind_only_is_nan():
    assert math.isnan(auroc([1, 1], [0.1, 0.2])) and math.isnan(auroc([], []))


@pytest.mark.parametrize(("successes", "total"), [(0, 10), (3, 10), (10, 10), (481, 553)])
def test_wilson_agrees_with_scipy(successes, total):
    expected = stats.binomtest(successes, total).proportion_ci(method="wilson")
    assert wilson(successes, total) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_wilson_knows_nothing_without_trials_and_refuses_impossible_counts():
    assert wilson(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="between 0 and total"):
        wilson(3, 2)
