"""T2I-CompBench++'s rules of place: every relation, constant and tie has a row with its arithmetic."""

import math

import numpy as np
import pytest

from thinkdraw.rewards.spatial import (
    iou,
    mean_depth,
    relation_score_2d,
    relation_score_3d,
    score_2d,
    score_3d,
)
from thinkdraw.types import Detection


def square(x, y, half=10):
    return (x - half, y - half, x + half, y + half)


def see(label, box=(0, 0, 10, 10), score=0.8):
    return Detection(label, box, score)


@pytest.mark.parametrize("word", ["next to", "on side of", "near"])
@pytest.mark.parametrize(
    ("dx", "dy", "score"),
    [
        (0, 0, 1.0),
        (149.9, 0, 1.0),
        (1000, 149.9, 1.0),  # near on one axis is near
        (-149.9, -1000, 1.0),
        (150, 150, 1.0),  # 150 / max(150, 150); the limit itself falls off from 1
        (300, 150, 0.5),  # 150 / 300
        (-150, -600, 0.25),
    ],
)
def test_near_means_less_than_150_pixels_on_one_axis_and_falls_off_beyond(word, dx, dy, score):
    assert relation_score_2d(word, square(0, 0), square(dx, dy)) == score


@pytest.mark.parametrize(
    ("word", "dx", "dy", "score"),
    [
        # dx, dy: where object 2 is as seen from object 1, y down
        ("on the left of", 100, 0, 1.0),
        ("on the left of", -100, 0, 0.0),
        ("on the left of", 100, 99, 1.0),
        ("on the left of", 100, 100, 0.0),  # |dx| > |dy| is strict
        ("on the right of", -100, 0, 1.0),
        ("on the right of", 100, 0, 0.0),
        ("on the right of", -100, -100, 0.0),
        ("on the top of", 0, 100, 1.0),
        ("on the top of", 0, -100, 0.0),
        ("on the top of", 99, 100, 1.0),
        ("on the top of", 100, 100, 0.0),
        ("on the bottom of", 0, -100, 1.0),
        ("on the bottom of", 0, 100, 0.0),
        ("on the left of", 0, 0, 0.0),
        ("on the top of", 0, 0, 0.0),
        ("on top of", 0, 100, 0.0),  # without "the" upstream has no rule
        (None, 0, 100, 0.0),
    ],
)
def test_directions_of_squares_of_side_20(word, dx, dy, score):
    assert relation_score_2d(word, square(0, 0), square(dx, dy)) == score


@pytest.mark.parametrize(
    ("dx", "score"),
    [
        # squares of side 20 shifted by dx share (20 - dx) / (20 + dx)
        (17, 1.0),  # 3 / 37 = 0.081 < 0.1
        (16, 0.9),  # 4 / 36 = 1 / 9  ->  0.1 / (1 / 9)
        (10, 0.3),  # 10 / 30 = 1 / 3
        (5, 1 / 6),  # 15 / 25 = 0.6
    ],
)
def test_overlapping_boxes_lower_a_direction_to_a_tenth_by_their_iou(dx, score):
    assert relation_score_2d("on the left of", square(0, 0), square(dx, 0)) == pytest.approx(score)
    assert relation_score_2d("on the right of", square(0, 0), square(-dx, 0)) == pytest.approx(score)
    assert relation_score_2d("on the top of", square(0, 0), square(0, dx)) == pytest.approx(score)
    assert relation_score_2d("on the bottom of", square(0, 0), square(0, -dx)) == pytest.approx(score)


def test_an_iou_of_exactly_a_tenth_scores_1():
    # 1 × 2 of 11 × 1 beside it: 1 / (2 + 9 - 1) = 0.1, and 0.1 / 0.1 = 1
    assert iou((0, 0, 2, 1), (1, 0, 10, 1)) == 0.1
    assert relation_score_2d("on the left of", (0, 0, 2, 1), (1, 0, 10, 1)) == 1.0


def test_iou_has_no_border_pixel_and_is_0_for_boxes_without_area():
    assert iou((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(2 / 6)
    assert iou((0, 0, 2, 2), (2, 0, 4, 2)) == 0
    assert iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0


BESIDE = [see("cat", square(50, 50), 0.8), see("dog", square(150, 50), 0.6)]


@pytest.mark.parametrize(
    ("word", "things", "detections", "score"),
    [
        ("on the left of", ("cat", "dog"), BESIDE, 0.85),  # 0.2 + 0.15 + 0.5
        ("on the right of", ("cat", "dog"), BESIDE, 0.0),  # 0.35 is below 0.5
        ("on the right of", ("dog", "cat"), BESIDE, 0.85),
        ("on the right of", ("cat", "dog"), [see("cat", square(50, 50), 1.0), see("dog", square(150, 50), 1.0)], 0.5),
        ("on the left of", ("cat", "cow"), [see("cat", score=1.0)], 0.0),  # 0.25
        ("on the left of", ("cow", "dog"), BESIDE, 0.0),  # 0.15
        ("on the left of", ("cow", "hen"), BESIDE, 0.0),
        ("on the left of", None, BESIDE, 0.0),
        ("on top of", ("cat", "dog"), BESIDE, 0.0),  # 0.35
        (None, ("cat", "dog"), BESIDE, 0.0),
        ("next to", ("cat", "dog"), [see("hot dog"), see("tabby cat")], 0.0),  # names must be equal
        ("next to", ("table", "cat"), [see("table, desk"), see("cat")], 0.0),
        ("next to", ("cat", "cat"), [see("cat", score=0.8)], 0.9),  # 0.2 + 0.2 + 0.5: one detection serves as both
        ("next to", ("cat", "dog"), [], 0.0),
    ],
)
def test_a_2d_score_is_made_of_confidences_and_the_relation_and_below_a_half_nothing(word, things, detections, score):
    assert score_2d(word, things, detections) == pytest.approx(score)


def test_the_first_detection_of_a_name_counts():
    found = [see("cat", square(50, 50), 0.9), see("cat", square(400, 50), 0.8), see("dog", square(200, 50), 0.4)]
    assert score_2d("on the left of", ("cat", "dog"), found) == pytest.approx(0.25 * 0.9 + 0.25 * 0.4 + 0.5)


# A map that falls from left to right of the *rows*: upstream looks a box up with x along the rows.
DEPTH = np.linspace(1, 0, 100, dtype=np.float32)[:, None].repeat(100, axis=1)


def test_depth_is_looked_up_in_the_mirrored_place_as_upstream_does():
    depth = np.zeros((4, 4), dtype=np.float32)
    depth[0:2, 2:4] = 1  # rows 0..1, columns 2..3: what a box with x in 0..2 and y in 2..4 is taken for
    assert mean_depth(depth, (0, 2, 2, 4)) == 1
    assert mean_depth(depth, (2, 0, 4, 2)) == 0


def test_box_edges_are_cut_to_whole_pixels_and_an_empty_part_has_no_depth():
    assert mean_depth(np.arange(4, dtype=np.float32)[:, None], (1.9, 0.0, 2.9, 1.0)) == 1
    assert math.isnan(mean_depth(DEPTH, (5.1, 0, 5.9, 50)))
    assert math.isnan(mean_depth(DEPTH, (100, 0, 120, 50)))  # beyond the rows of a picture that is not square


@pytest.mark.parametrize(
    ("word", "box_1", "box_2", "score"),
    [
        # smaller x is nearer in DEPTH; boxes of 20 × 20 shifted by 5 share 15 / 25 = 0.6, by 10 they share 1 / 3
        ("in front of", (0, 0, 20, 20), (5, 0, 25, 20), 1.0),
        ("in front of", (5, 0, 25, 20), (0, 0, 20, 20), 0.0),
        ("behind", (5, 0, 25, 20), (0, 0, 20, 20), 1.0),
        ("behind", (0, 0, 20, 20), (5, 0, 25, 20), 0.0),
        ("hidden", (5, 0, 25, 20), (0, 0, 20, 20), 1.0),
        ("hidden", (0, 0, 20, 20), (5, 0, 25, 20), 0.0),
        ("in front of", (0, 0, 20, 20), (10, 0, 30, 20), 2 / 3),  # (1 / 3) / 0.5
        ("behind", (10, 0, 30, 20), (0, 0, 20, 20), 2 / 3),
        ("in front of", (10, 0, 30, 20), (0, 0, 20, 20), 0.0),
        ("in front of", (0, 0, 20, 20), (20, 0, 40, 20), 0.0),  # no overlap: 0 / 0.5
        ("in front of", (0, 0, 20, 10), (0, 0, 20, 20), 0.0),  # IoU of exactly 0.5: neither rule
        ("behind", (10, 0, 20, 20), (0, 0, 20, 20), 0.0),  # the same, in the right order
        ("in front of", (0, 0, 20, 20), (0, 5, 20, 25), 0.0),  # the same depth is not in front
        ("behind", (0, 0, 20, 20), (0, 5, 20, 25), 0.0),
        ("in front of", (100, 0, 120, 20), (95, 0, 115, 20), 0.0),  # a box beyond the map has no depth
        ("on the left of", (0, 0, 20, 20), (5, 0, 25, 20), 0.0),
        (None, (0, 0, 20, 20), (5, 0, 25, 20), 0.0),
    ],
)
def test_relations_in_depth(word, box_1, box_2, score):
    assert relation_score_3d(word, box_1, box_2, DEPTH) == pytest.approx(score)


def test_a_3d_score_has_no_lowest_value():
    assert score_3d("behind", ("cat", "dog"), [see("dog", score=0.4)], DEPTH) == pytest.approx(0.1)
    assert score_3d("behind", ("cat", "dog"), [see("cat", score=0.4)], DEPTH) == pytest.approx(0.1)
    assert score_3d("behind", ("cat", "dog"), [see("cow")], DEPTH) == 0
    assert score_3d(None, None, [see("cow")], DEPTH) == 0
    front = [see("cat", (0, 0, 20, 20), 0.8), see("dog", (5, 0, 25, 20), 0.4)]
    assert score_3d("in front of", ("cat", "dog"), front, DEPTH) == pytest.approx(0.2 + 0.1 + 0.5)
    assert score_3d("behind", ("cat", "dog"), front, DEPTH) == pytest.approx(0.2 + 0.1)


def test_in_3d_a_name_may_be_part_of_a_label():
    found = [see("table, desk", (0, 0, 20, 20), 0.8), see("hot dog", (5, 0, 25, 20), 0.4)]
    assert score_3d("in front of", ("desk", "dog"), found, DEPTH) == pytest.approx(0.2 + 0.1 + 0.5)


def test_while_the_second_thing_is_looked_for_later_detections_of_the_first_replace_it():
    cats = [see("cat", (0, 0, 20, 20), 0.8), see("cat", (50, 0, 70, 20), 0.6)]
    dog = see("dog", (5, 0, 25, 20), 0.4)
    # cat, cat, dog: the second cat (0.6) counts, and it does not touch the dog
    assert score_3d("in front of", ("cat", "dog"), [*cats, dog], DEPTH) == pytest.approx(0.15 + 0.1)
    # cat, dog, cat: the walk ends at the dog
    assert score_3d("in front of", ("cat", "dog"), [cats[0], dog, cats[1]], DEPTH) == pytest.approx(0.2 + 0.1 + 0.5)
    # alone, the first match counts
    assert score_3d("in front of", ("cat", "cow"), cats, DEPTH) == pytest.approx(0.2)
