"""T2I-CompBench++'s rule of numbers: every step has a row with its arithmetic."""

import pytest

from thinkdraw.benchmarks.compbench.numeracy import numeracy_score, without_duplicates
from thinkdraw.types import Detection


def see(label, x=0.0, y=0.0, width=9.0, height=9.0):
    return Detection(label, (x, y, x + width, y + height), 0.9)


def apart(label, count):
    return [see(label, x=100 * i) for i in range(count)]


@pytest.mark.parametrize(
    ("asked", "found", "score"),
    [
        ([("dog", 2)], apart("dog", 2), 1.0),
        ([("dog", 2)], apart("dog", 1), 0.5),  # there, but not as many
        ([("dog", 2)], apart("dog", 3), 0.5),
        ([("dog", 2)], [], 0.0),
        ([("dog", 2), ("cat", 1)], [*apart("dog", 2), see("cat")], 1.0),
        ([("dog", 2), ("cat", 1)], apart("dog", 2), 0.5),
        ([("dog", 2), ("cat", 1)], [*apart("dog", 1), see("cat")], 0.75),  # ½·½ + ½
        ([("dog", 2), ("cat", 1), ("cow", 1)], apart("dog", 1), 1 / 6),
        ([("boy", 2)], apart("person", 2), 1.0),
        ([("girl", 1)], apart("person", 1), 1.0),
        ([("man", 1)], apart("person", 1), 1.0),
        ([("woman", 1)], apart("person", 1), 1.0),
        ([("ship", 1)], apart("boat", 1), 1.0),
        ([("telivision", 1)], apart("tv", 1), 1.0),  # upstream's spelling
        ([("television", 1)], apart("tv", 1), 0.0),
        ([("goldfish", 1)], apart("fish", 1), 1.0),
        ([("painting", 1)], apart("picture", 1), 1.0),
        # boys and girls are the same persons: each asks for one, and two are there
        ([("boy", 1), ("girl", 1)], apart("person", 2), 0.5),
        # no label is "desk": every label that contains it becomes it
        ([("desk", 2)], [see("table, desk"), see("desk lamp", x=100)], 1.0),
        # "desk" is a label, so that others keep theirs
        ([("desk", 2)], [see("desk"), see("table, desk", x=100)], 0.5),
        # what was renamed for the first thing stays renamed for the next
        ([("lamp", 1), ("desk lamp", 1)], [see("desk lamp")], 0.5),
        ([("desk lamp", 1), ("lamp", 1)], [see("desk lamp")], 1.0),
    ],
)
def test_half_for_being_there_and_half_for_the_number(asked, found, score):
    assert numeracy_score(asked, found) == pytest.approx(score)


def test_nothing_asked_for_is_no_score():
    with pytest.raises(ValueError, match="at least one"):
        numeracy_score([], apart("dog", 1))


@pytest.mark.parametrize(
    ("second", "num_kept"),
    [
        (see("dog"), 1),
        (see("cat"), 2),  # another label
        # 10 × 10 pixels and 10 × 10 shifted by 1: 90 / 110 and 90 / 100 = 0.9 exactly, which is not more than 0.9
        (see("dog", x=1), 2),
        (see("dog", x=0.5), 1),  # 95 / 100 of either box
        # 100 × 100 pixels: the small box lies wholly in it, though the IoU is 0.01
        (see("dog", width=99, height=99), 1),
        (see("dog", x=4, y=4, width=1, height=1), 1),
        (see("dog", x=5, width=9), 2),
    ],
)
def test_a_box_that_all_but_covers_another_of_its_label_counts_once(second, num_kept):
    assert len(without_duplicates([see("dog"), second])) == num_kept


def test_only_kept_detections_suppress():
    # 95 % of b is in a, 95 % of c in b, but 90 % of c in a: b goes, c stays
    chain = [see("dog", x=0), see("dog", x=0.5), see("dog", x=1)]
    assert without_duplicates(chain) == [chain[0], chain[2]]
