import numpy as np
import pytest

from thinkdraw.benchmarks.crossed import crossed_difference, crossed_score, differences, is_crossed
from thinkdraw.benchmarks.statistics import PromptVerdicts, paired_difference, task_mean_score

NAN = float("nan")


def row(task, prompt, *values):
    return PromptVerdicts(task, values, prompt)


def test_the_value_is_the_mean_of_the_tasks_pooled_means():
    rows = [row("style", "a", 1, 0), row("text", "a", 1), row("style", "b", 1, 1, 1, NAN)]
    score = crossed_score(rows)
    assert score.value == (4 / 5 + 1) / 2  # style: 1+0+1+1+1 of 5; text: 1 of 1
    assert (score.pictures, score.prompts, score.num_no_verdict) == (6, 2, 1)


def test_columns_that_move_together_have_a_wider_interval_than_independent_ones():
    rng = np.random.default_rng(0)
    right = rng.random(80) < 0.5
    together = [row(task, f"p{i}", float(r)) for i, r in enumerate(right) for task in ("a", "b", "c", "d")]
    score, apart = crossed_score(together), task_mean_score(together)
    assert score.value == apart.value
    # four equal columns carry the information of one: the width is that of one column, twice that of four
    one = task_mean_score([r for r in together if r.task == "a"])
    assert score.high - score.low == pytest.approx(one.high - one.low, rel=0.1)
    assert apart.high - apart.low < 0.6 * (score.high - score.low)


def test_one_task_per_prompt_is_not_crossed():
    assert is_crossed([row("a", "p", 1), row("b", "p", 1)]) and not is_crossed([row("a", "p", 1), row("b", "q", 1)])


def test_the_same_rows_differ_by_zero():
    rng = np.random.default_rng(1)
    crossed = [row(task, f"p{i}", *rng.random(3)) for i in range(20) for task in ("a", "b")]
    plain = [row("ab"[i % 2], f"p{i}", *rng.random(3)) for i in range(20)]
    for rows in (crossed, plain):
        for score in differences(rows, rows).values():
            assert score.value == 0 and -0.2 < score.low < 0 < score.high < 0.2


def test_differences_name_the_column_that_changed():
    good = [row(task, f"p{i}", 1, 1) for i in range(20) for task in ("a", "b")]
    bad = [r._replace(verdicts=(0, 1)) if r.task == "b" else r for r in good]
    found = differences(good, bad)
    assert (found["a"].value, found["b"].value, found["overall"].value) == (0, 0.5, 0.25)
    assert found["overall"].low > 0


def test_a_prompt_counts_if_both_sides_have_a_verdict():
    a = [row("a", "p", 1), row("b", "p", 1), row("a", "q", 0), row("b", "q", NAN)]
    b = [row("a", "p", 0), row("b", "p", 1), row("a", "q", 0), row("b", "q", 1)]
    found = crossed_difference(a, b)
    assert found.value == ((1 + 0) / 2 - 0 + (1 - 1)) / 2  # b counts on p alone
    assert found.num_no_verdict == 1


def test_plain_columns_are_those_of_paired_difference():
    a, b = [row("a", "p", 1), row("b", "q", 0)], [row("a", "p", 0), row("b", "q", 0)]
    assert differences(a, b)["overall"] == paired_difference(a, b)


def test_other_prompts_are_refused():
    with pytest.raises(ValueError, match="same prompts"):
        crossed_difference([row("a", "p", 1)], [row("a", "q", 1)])
