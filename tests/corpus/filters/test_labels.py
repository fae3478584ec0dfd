import math

import pytest

from thinkdraw.corpus.filters.labels import balance_labels, clear_label, right_labels


def test_no_verdict_is_no_label():
    assert right_labels([1.0, 0.5, math.nan], min_yes=0.999) == [True, False, None]


@pytest.mark.parametrize(("step", "label"), [(9, False), (10, None), (11, None), (12, True), (18, True)])
def test_clear_follows_the_published_steps(step, label):
    # of 18 steps: after the 11th yes, before the 10th no
    assert clear_label(step / 18, 11 / 18, 10 / 18) is label


def test_there_are_as_many_yes_as_no_within_each_prompt():
    labels = [True, True, True, False, None, True, True, False, False]
    groups = [0, 0, 0, 0, 0, 1, 1, 2, 2]
    kept = balance_labels(labels, groups, "prompt", seed=0)
    # prompt 0 gives one of each; prompts 1 and 2, all right and all wrong, give none
    assert len(kept) == 2 and 3 in kept and kept[0] in (0, 1, 2)
    overall = balance_labels(labels, groups, "overall", seed=0)
    assert [labels[i] for i in overall].count(True) == [labels[i] for i in overall].count(False) == 3
    assert overall == sorted(overall) and overall == balance_labels(labels, groups, "overall", seed=0)
    assert {tuple(balance_labels(labels, groups, "overall", seed=n)) for n in range(5)} != {tuple(overall)}
