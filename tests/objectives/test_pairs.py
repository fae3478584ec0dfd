import math

import pytest
import torch

from thinkdraw.objectives.pairs import accepted_rows, pairs_from_rewards

NAN = math.nan
# groups of 3: (1, 3, 2); (0.5, 0.5, 0.5); (NaN, 4, 4.5); (NaN, NaN, 1)
REWARDS = torch.tensor([1.0, 3, 2, 0.5, 0.5, 0.5, NAN, 4, 4.5, NAN, NAN, 1])


def test_best_and_worst_of_each_group_with_spread():
    pairs = pairs_from_rewards(REWARDS, 3)
    assert pairs.better.tolist() == [1, 8] and pairs.worse.tolist() == [0, 7]
    assert pairs.margin.tolist() == [2.0, 0.5]
    assert pairs.better.dtype == torch.int64
    assert (pairs.num_flat_groups, pairs.num_dropped_groups, pairs.num_no_verdict) == (1, 1, 3)


def test_all_pairs_are_those_of_a_group_with_different_rewards_better_first():
    # of (1, 3, 2): rows 1 > 0, 2 > 0, 1 > 2.  of (NaN, 4, 4.5): 8 > 7
    pairs = pairs_from_rewards(REWARDS, 3, which="all")
    assert list(zip(pairs.better.tolist(), pairs.worse.tolist())) == [(1, 0), (2, 0), (1, 2), (8, 7)]
    assert pairs.margin.tolist() == [2.0, 1.0, 1.0, 0.5]


def test_all_pairs_of_distinct_rewards_are_g_times_g_minus_1_over_2():
    pairs = pairs_from_rewards(torch.randperm(16).float(), 8, which="all")
    assert len(pairs.better) == 2 * 28
    assert (pairs.better // 8 == pairs.worse // 8).all() and (pairs.margin > 0).all()


def test_a_margin_under_the_minimum_makes_no_pair_and_a_group_without_pair_is_counted():
    pairs = pairs_from_rewards(REWARDS, 3, which="all", min_margin=1.5)
    assert pairs.better.tolist() == [1] and pairs.num_flat_groups == 2
    # 0.9 - 0.8 is 0.09999996 in float32 and still a margin of 0.1
    assert len(pairs_from_rewards(torch.tensor([0.8, 0.9]), 2, min_margin=0.1).better) == 1


def test_of_equal_rewards_the_first_row_is_taken():
    pairs = pairs_from_rewards(torch.tensor([0.0, 1, 1, 0]), 4)
    assert (pairs.better.tolist(), pairs.worse.tolist()) == ([1], [0])


def test_a_batch_without_any_pair_gives_empty_indices():
    pairs = pairs_from_rewards(torch.zeros(4), 2)
    assert pairs.better.shape == pairs.worse.shape == pairs.margin.shape == (0,) and pairs.num_flat_groups == 2


def test_rows_above_the_threshold_are_kept():
    # > 1, not >= 1; NaN is never above
    assert accepted_rows(REWARDS, 3, threshold=1.0).tolist() == [1, 2, 7, 8]


def test_the_best_of_each_group_is_kept_and_a_group_without_verdict_gives_none():
    rewards = torch.cat([REWARDS, torch.tensor([NAN, NAN, NAN])])
    assert accepted_rows(rewards, 3, best_of=True).tolist() == [1, 3, 8, 11]


def test_best_of_with_a_threshold_keeps_the_best_if_it_is_above():
    assert accepted_rows(REWARDS, 3, threshold=1.0, best_of=True).tolist() == [1, 8]


def test_one_rollout_per_prompt_is_enough_for_a_threshold():
    assert accepted_rows(torch.tensor([0.0, 1.0]), 1, threshold=0.5).tolist() == [1]


def test_options_that_choose_nothing_or_everything_are_refused():
    with pytest.raises(ValueError, match="Choose at least one"):
        accepted_rows(REWARDS, 3)
    with pytest.raises(ValueError, match="'best_worst' or 'all'"):
        pairs_from_rewards(REWARDS, 3, which="random")
    with pytest.raises(ValueError, match="min_margin=-1"):
        pairs_from_rewards(REWARDS, 3, min_margin=-1)
    with pytest.raises(ValueError, match="needs at least 2"):
        pairs_from_rewards(REWARDS, 1)
