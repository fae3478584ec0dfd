"""Detections and depth in the form that T2I-CompBench++'s rules expect."""

import numpy as np
import pytest

from thinkdraw.benchmarks.compbench.scales import depth_map, detector_size, to_unidet
from thinkdraw.types import Detection


def see(score, box=(0, 0, 100, 100), label="dog"):
    return Detection(label, box, score)


@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((384, 384), (479, 479)),
        ((1024, 1024), (479, 479)),
        ((500, 499), (479, 479)),  # int(479 · 500 / 499) = 479
        ((800, 400), (480, 240)),  # 479 and 958: the long side is capped, int(480 · 479 / 958) = 240
        ((400, 800), (240, 480)),
        ((300, 200), (480, 320)),  # 718; int(480 · 479 / 718) = 320
    ],
)
def test_the_short_side_is_479_unless_the_long_one_exceeds_480(size, resized):
    assert detector_size(*size) == resized


def test_boxes_are_clipped_to_the_picture_and_scaled_with_it():
    found = to_unidet([see(0.9, (-50, 100, 400, 500))], 400, 400)
    assert found[0].box == pytest.approx((0, 100 * 479 / 400, 479, 479))


def test_scores_must_exceed_a_tenth_and_come_best_first():
    found = to_unidet([see(0.2, (0, 0, 10, 10)), see(0.1, (20, 20, 30, 30)), see(0.9, (50, 50, 60, 60))], 479, 479)
    assert [d.score for d in found] == [0.9, 0.2]


@pytest.mark.parametrize(
    ("second", "num_kept"),
    [
        (see(0.5, (0, 0, 100, 51)), 1),  # IoU 0.51
        (see(0.5, (0, 0, 100, 50)), 2),  # IoU 0.5 is kept
        (see(0.5, (0, 0, 100, 100), "cat"), 2),  # another label
    ],
)
def test_of_two_boxes_of_a_label_that_overlap_by_more_than_half_the_better_stays(second, num_kept):
    assert len(to_unidet([second, see(0.9)], 479, 479)) == num_kept


def test_at_most_300_detections_are_left():
    grid = [see(0.2 + i / 1000, (i, 0, i + 0.5, 1)) for i in range(310)]
    found = to_unidet(grid, 479, 479)
    assert len(found) == 300 and found[-1].score == pytest.approx(0.21)


def test_a_depth_map_keeps_its_steps_of_a_255th_and_gets_the_detectors_size():
    depth = np.zeros((40, 80), dtype=np.float32)
    depth[:, 40:] = 128 / 255
    found = depth_map(depth)
    assert found is not None and found.shape == (240, 480)
    assert found[0, 0] == 0 and found[0, -1] == np.float32(128) / 255


def test_a_depth_that_is_not_a_number_is_no_map():
    assert depth_map(np.full((4, 4), np.nan, dtype=np.float32)) is None
