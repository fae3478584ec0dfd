import math

import numpy as np
import pytest

from thinkdraw.benchmarks.diversity import diversity, patch_colors, similarity, vendi_score


def plain(value, size=16):
    return np.full((size, size, 3), value, dtype=np.uint8)


def test_pairwise_distances_by_hand():
    # pixels: |0−255|, |0−51|, |255−51| over 255 = 1, 0.2, 0.8; tokens: pairs differ in 2, 1 and 2 of 2 places
    found = diversity([plain(0), plain(255), plain(51)], [np.array(t) for t in ((1, 2), (3, 4), (1, 5))])
    assert found.pixels == pytest.approx(2 / 3) and found.tokens == pytest.approx((1 + 0.5 + 1) / 3)


def test_the_vendi_score_counts_different_pictures():
    assert vendi_score(np.ones((4, 4))) == pytest.approx(1)
    assert vendi_score(np.eye(4)) == pytest.approx(4)
    twins = np.kron(np.eye(2), np.ones((2, 2)))
    assert vendi_score(twins) == pytest.approx(2)


def test_the_vendi_score_of_two_pictures_by_hand():
    # eigenvalues of [[1, s], [s, 1]] / 2 at s = 0.5: 0.75 and 0.25
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert vendi_score(np.array([[1, 0.5], [0.5, 1]])) == pytest.approx(expected)


def test_equal_pictures_count_as_one_and_opposite_ones_as_many():
    tokens = [np.zeros(4)] * 3
    assert diversity([plain(9)] * 3, tokens).vendi == pytest.approx(1)
    assert diversity([plain(v) for v in (0, 128, 255)], tokens).vendi == pytest.approx(3, abs=0.01)


def test_the_kernel_is_one_on_its_diagonal_and_positive_semi_definite():
    kernel = similarity(np.random.default_rng(0).random((12, 30)))
    assert np.allclose(np.diag(kernel), 1) and np.linalg.eigvalsh(kernel).min() > -1e-9


def test_patch_colours_are_means_and_leave_a_border_out():
    picture = plain(0, 20)
    picture[:8, :8] = 255
    assert patch_colors([picture]).reshape(2, 2, 3)[:, :, 0].tolist() == [[1, 0], [0, 0]]


def test_one_picture_has_no_diversity():
    assert math.isnan(diversity([plain(0)], [np.zeros(4)]).vendi)
