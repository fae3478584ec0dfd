"""Each published rule of GenEval has a row here."""

import random

import numpy as np
import pytest

from thinkdraw.rewards.rules import COLORS, RELATIONS, fact_share, judge_picture, keep_detections
from thinkdraw.rewards.rules import relative_position as relations
from thinkdraw.types import Detection

LEFT, MIDDLE, RIGHT = (0, 40, 20, 60), (40, 40, 60, 60), (80, 40, 100, 60)


def see(box=MIDDLE, score=0.95, color=None):
    return Detection("thing", box, score, {"color": color} if color else {})


def own_color(name, found):
    return [detection.attributes["color"] for detection in found]


def no_color(name, found):
    raise AssertionError("colour must not be asked")


def judge(kept, *include, exclude=(), color_of=own_color):
    return judge_picture({"include": list(include), "exclude": list(exclude)}, kept, color_of)


def want(name, count=1, **more):
    return {"class": name, "count": count, **more}


def test_the_palette_has_the_official_order():
    assert COLORS == ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")


@pytest.mark.parametrize(
    ("tag", "score", "is_kept"),
    [
        ("colors", 0.31, True),
        ("colors", 0.3, False),
        ("colors", float(np.float32(0.3)), False),  # 0.30000001192 as a Python float, yet equal to the threshold
        ("colors", float(np.nextafter(np.float32(0.3), np.float32(1))), True),
        ("counting", 0.89, False),
        ("counting", float(np.float32(0.9)), False),
        ("counting", 0.91, True),
        ("colors", float("nan"), False),
    ],
)
def test_thresholds_are_strict_in_float32(tag, score, is_kept):
    assert ("dog" in keep_detections({"dog": [see(score=score)]}, tag=tag)) is is_kept


def test_detections_are_kept_best_first_and_of_equal_scores_the_later_leads():
    found = [see(LEFT, 0.5), see(MIDDLE, 0.8), see(RIGHT, 0.5)]
    assert keep_detections({"dog": found}, tag="position")["dog"] == [found[1], found[2], found[0]]


def test_scores_that_are_equal_only_in_float32_are_a_tie():
    found = [see(LEFT, 0.5 + 1e-12), see(RIGHT, 0.5)]
    assert keep_detections({"dog": found}, tag="position")["dog"] == [found[1], found[0]]


def test_at_most_16_detections_of_a_class_are_kept():
    found = [see(score=0.4 + i / 100) for i in range(20)]
    assert keep_detections({"dog": found}, tag="colors")["dog"] == found[:3:-1]


def test_a_class_without_kept_detections_is_absent():
    assert keep_detections({"dog": [], "cat": [see(score=0.1)], "cow": [see()]}, tag="colors").keys() == {"cow"}


def test_identical_boxes_are_all_kept_by_default():
    assert len(keep_detections({"dog": [see()] * 3}, tag="colors")["dog"]) == 3


@pytest.mark.parametrize(("max_overlap", "num_kept"), [(0.5, 1), (0.51, 2)])
def test_suppression_counts_pixels_inclusively_and_drops_at_equality(max_overlap, num_kept):
    # widths 0..2 -> 3 and 1..3 -> 3, shared 1..2 -> 2; one row: IoU = 2 / (3 + 3 - 2) = 0.5
    # the exclusive convention would give zero areas for boxes of height 0
    found = [see((0, 0, 2, 0), 0.9), see((1, 0, 3, 0), 0.8)]
    assert len(keep_detections({"a": found}, tag="colors", max_overlap=max_overlap)["a"]) == num_kept


def test_a_suppressed_box_suppresses_nobody():
    # a and b overlap, b and c overlap, a and c do not: b goes, c stays
    found = [see((0, 0, 9, 9), 0.9), see((4, 0, 13, 9), 0.8), see((10, 0, 19, 9), 0.7)]
    assert keep_detections({"x": found}, tag="colors", max_overlap=0.2)["x"] == [found[0], found[2]]


def square(x, y, half=10):
    return (x - half, y - half, x + half, y + half)


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (-50, 0, {"left of"}),
        (50, 0, {"right of"}),
        (0, -50, {"above"}),  # y points down
        (0, 50, {"below"}),
        (0, 0, set()),
        (4, 0, set()),  # 4 - 0.1 * (20 + 20) = 0
        (8, 0, set()),  # (8 - 4) / 8 = 0.5, strict
        (8.1, 0, {"right of"}),
        (10, 10, set()),  # (10 - 4) / 14.14 = 0.42 on both axes: a near diagonal has no relation
        (13, 13, set()),  # 9 / 18.38 = 0.4895
        (14, 14, {"right of", "below"}),  # 10 / 19.80 = 0.505
        (-100, -100, {"left of", "above"}),  # 96 / 141.4 = 0.68
        (100, 30, {"right of"}),
    ],
)
def test_relations_of_squares_of_side_20(x, y, expected):
    assert relations(square(x, y), square(0, 0)) == expected


def test_an_offset_shortened_to_less_than_a_thousandth_pixel_is_no_relation():
    assert relations(square(0.0009, 0), square(0, 0), margin=0.0) == set()
    assert relations(square(0.01, 0), square(0, 0), margin=0.0) == {"right of"}


def test_sizes_are_absolute_so_swapped_corners_change_nothing():
    # a size of -20 would cancel the target's +20: no shortening, 10 / 14.14 = 0.71 on both axes
    assert relations((20, 20, 0, 0), square(0, 0)) == relations((0, 0, 20, 20), square(0, 0)) == set()


def test_a_single_object_needs_no_uniqueness():
    verdict = judge({"dog": [see(), see()]}, want("dog"))
    assert verdict.correct and verdict.reason == ""


def test_two_classes_may_share_one_box():
    assert judge({"dog": [see()], "cat": [see()]}, want("dog"), want("cat")).correct


def test_too_few_objects_fail_before_colour_is_asked():
    verdict = judge({"dog": [see()]}, want("dog", 2, color="red"), color_of=no_color)
    assert verdict.reason == "expected dog>=2, found 1" and not verdict.correct


def test_counting_is_exact_because_of_the_exclude_clause():
    for num_seen, reason in [(1, "expected dog>=2, found 1"), (2, ""), (3, "expected dog<3, found 3")]:
        verdict = judge({"dog": [see()] * num_seen}, want("dog", 2), exclude=[want("dog", 3)])
        assert (verdict.correct, verdict.reason) == (reason == "", reason)


def test_exclude_counts_all_kept_objects():
    assert judge({"dog": [see()] * 16}, exclude=[want("dog", 3)]).reason == "expected dog<3, found 16"


def test_exclude_of_an_unseen_class_holds():
    assert judge({}, exclude=[want("dog", 1)]).correct


def test_colour_is_asked_for_exactly_the_best_count_objects():
    asked = []

    def color_of(name, found):
        asked.append((name, list(found)))
        return ["red"] * len(found)

    dogs = [see(LEFT), see(MIDDLE), see(RIGHT)]
    assert judge({"dog": dogs}, want("dog", 2, color="red"), color_of=color_of).correct
    assert asked == [("dog", dogs[:2])]


def test_only_the_most_confident_object_is_inspected_for_colour():
    dogs = [see(color="blue"), see(color="red")]
    assert judge({"dog": dogs}, want("dog", color="red")).reason == "expected red dog>=1, found 0 red; and 1 blue"


def test_seen_colours_are_listed_in_palette_order_with_the_asked_one_among_them():
    dogs = [see(color="white"), see(color="red"), see(color="black"), see(color="white")]
    assert judge({"dog": dogs}, want("dog", 4, color="red")).reason == (
        "expected red dog>=4, found 1 red; and 1 red, 1 black, 2 white"
    )


def test_the_same_class_in_two_colour_clauses_cannot_pass():
    dogs = [see(color="red"), see(color="blue")]
    verdict = judge({"dog": dogs}, want("dog", color="red"), want("dog", color="blue"))
    assert verdict.reason == "expected blue dog>=1, found 0 blue; and 1 red"


def test_a_colour_callable_that_answers_for_too_few_objects_is_an_error():
    with pytest.raises(ValueError, match="0 colours for 1 objects"):
        judge({"dog": [see()]}, want("dog", color="red"), color_of=lambda name, found: [])


CAT_LEFT_OF_DOG = (want("dog"), want("cat", position=["left of", 0]))


@pytest.mark.parametrize(
    ("dog", "cat", "reason"),
    [
        (RIGHT, LEFT, ""),
        (LEFT, RIGHT, "expected cat left of target, found right of target"),
        (MIDDLE, MIDDLE, "expected cat left of target, found  target"),
        (square(0, 0), square(100, 100), "expected cat left of target, found right of and below target"),
        (square(100, 100), square(0, 0), ""),  # left of and above: one of two is enough
    ],
)
def test_position_wordings(dog, cat, reason):
    assert judge({"dog": [see(dog)], "cat": [see(cat)]}, *CAT_LEFT_OF_DOG).reason == reason


def test_a_position_without_its_target_gives_both_reasons():
    verdict = judge({"cat": [see()]}, *CAT_LEFT_OF_DOG)
    assert verdict.reason == "expected dog>=1, found 0\nno target for cat to be left of"


def test_a_target_of_the_wrong_colour_is_no_target():
    kept = {"dog": [see(RIGHT, color="blue")], "cat": [see(LEFT)]}
    verdict = judge(kept, want("dog", color="red"), want("cat", position=["left of", 0]))
    assert verdict.reason.endswith("\nno target for cat to be left of")


def test_position_is_not_checked_where_the_colour_fails():
    kept = {"dog": [see(LEFT)], "cat": [see(RIGHT, color="blue")]}
    verdict = judge(kept, want("dog"), want("cat", color="red", position=["left of", 0]))
    assert verdict.reason == "expected red cat>=1, found 0 red; and 1 blue"


def test_only_the_most_confident_object_is_inspected_for_position():
    assert not judge({"dog": [see(MIDDLE)], "cat": [see(RIGHT), see(LEFT)]}, *CAT_LEFT_OF_DOG).correct


def test_the_relation_must_hold_for_every_pair_and_the_first_violation_is_named_once():
    kept = {"dog": [see(RIGHT), see(LEFT)], "cat": [see(MIDDLE), see(square(50, 100))]}
    verdict = judge(kept, want("dog", 2), want("cat", 2, position=["left of", 0]))
    assert verdict.reason == "expected cat left of target, found right of target"  # the pair (MIDDLE, LEFT)


def test_a_position_must_point_at_an_earlier_clause():
    for target in (1, 2, -1):
        with pytest.raises(ValueError, match="earlier clause"):
            judge({"dog": [see()], "cat": [see()]}, want("dog"), want("cat", position=["left of", target]))


def test_every_failed_clause_has_its_line_in_order():
    verdict = judge({"cow": [see()] * 2}, want("dog"), want("cat", 2), exclude=[want("cow", 2)])
    assert verdict.reason == "expected dog>=1, found 0\nexpected cat>=2, found 0\nexpected cow<2, found 2"


@pytest.mark.parametrize(
    ("dog", "cat", "share"),
    [
        (see(RIGHT, color="red"), see(LEFT, color="blue"), 5 / 5),
        (see(RIGHT, color="pink"), see(LEFT, color="blue"), 4 / 5),  # the place still counts
        (see(LEFT, color="pink"), see(RIGHT, color="blue"), 3 / 5),
        (None, see(LEFT, color="blue"), 2 / 5),  # cat exists and is blue
        (None, None, 0 / 5),
    ],
)
def test_fact_share_counts_existence_colour_and_position_once_each(dog, cat, share):
    kept = {name: [seen] for name, seen in (("dog", dog), ("cat", cat)) if seen}
    include = [want("dog", color="red"), want("cat", color="blue", position=["left of", 0])]
    assert fact_share({"include": include}, kept, own_color) == share


def test_fact_share_of_a_wrong_count_is_one_half():
    metadata = {"include": [want("dog", 2)], "exclude": [want("dog", 3)]}
    shares = [fact_share(metadata, {"dog": [see()] * n}, no_color) for n in (1, 2, 3)]
    assert shares == [0.5, 1.0, 0.5]


def test_fact_share_is_one_exactly_when_the_picture_is_correct():
    rng = random.Random(0)
    outcomes = set()
    for _ in range(5000):
        include = []
        for index in range(rng.randint(0, 3)):
            clause = want(rng.choice("ab"), rng.randint(1, 2))
            if rng.random() < 0.4:
                clause["color"] = rng.choice(COLORS[:2])
            if index and rng.random() < 0.6:
                clause["position"] = [rng.choice(RELATIONS), rng.randrange(index)]
            include.append(clause)
        metadata = {"include": include, "exclude": [want("a", rng.randint(1, 4))] if rng.random() < 0.4 else []}
        kept = {
            name: [see(square(*rng.choices(range(0, 200, 50), k=2)), color=rng.choice(COLORS[:2])) for _ in range(n)]
            for name in "ab"
            if (n := rng.randint(0, 3))
        }
        correct, share = judge_picture(metadata, kept, own_color).correct, fact_share(metadata, kept, own_color)
        assert 0 <= share <= 1 and (share == 1.0) == correct
        outcomes.add((correct, bool(metadata["exclude"]), any("position" in clause for clause in include)))
    assert len(outcomes) == 8  # every kind of prompt was seen to pass and to fail
