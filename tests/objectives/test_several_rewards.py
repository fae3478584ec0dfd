import math

import pytest
import torch

from thinkdraw.objectives.advantages import BatchMoments, batch_moments, batch_normalized, group_normalized
from thinkdraw.objectives.several_rewards import combine

NAN = math.nan
ONE = 1 + 1e-4  # std 1 + eps


def tensors(**rewards):
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in rewards.items()}


def test_gdpo_normalises_each_reward_in_its_group_sums_and_normalises_the_batch():
    # a: (0, 1, 2) -> -1, 0, 1.  b: (300, 100, 200), weight 2 -> 2 * (1, -1, 0).  Sum (1, -2, 1): mean 0, std sqrt(3).
    rewards = tensors(a=[0.0, 1, 2], b=[300.0, 100, 200])
    result = combine(rewards, 3, {"a": 1.0, "b": 2.0}, batch_stats=(0.0, 1.0))
    std_b = 100 / (100 + 1e-4)
    expected = torch.tensor([-1 / ONE + 2 * std_b, -2 * std_b, 1 / ONE], dtype=torch.float64)
    torch.testing.assert_close(result.values, expected)
    normalised = combine(rewards, 3, {"a": 1.0, "b": 2.0}).values
    torch.testing.assert_close(normalised, torch.tensor([1.0, -2, 1]).double() / math.sqrt(3), atol=2e-4, rtol=0)


def test_gdpo_does_not_feel_the_scale_of_a_reward_where_the_sum_does():
    rewards = tensors(a=[0.0, 1, 0, 1], b=[0.0, 0, 1, 1])
    large = rewards | {"b": 1000 * rewards["b"]}
    torch.testing.assert_close(combine(large, 4).values, combine(rewards, 4).values, atol=1e-3, rtol=0)


def test_weighted_sum_maps_each_reward_to_0_to_1_adds_and_normalises_the_group():
    # a in 0..10: (0, 0.5, 1).  b in 1..5 at weight 2: 2 * (1, 0, 0.5).  Sum (2, 0.5, 2): mean 1.5, std sqrt(3)/2.
    rewards = tensors(a=[0.0, 5, 10], b=[5.0, 1, 3])
    ranges = {"a": (0.0, 10.0), "b": (1.0, 5.0)}
    result = combine(rewards, 3, {"a": 1.0, "b": 2.0}, how="weighted_sum", ranges=ranges)
    expected = torch.tensor([0.5, -1.0, 0.5]).double() / (math.sqrt(3) / 2 + 1e-4)
    torch.testing.assert_close(result.values, expected)
    # the same as GRPO on the sum
    torch.testing.assert_close(result.values, group_normalized(torch.tensor([2.0, 0.5, 2]).double(), 3).values)


def test_one_reward_alone_is_grpo():
    rewards = tensors(a=[0.0, 1, 2, 5])
    expected = group_normalized(rewards["a"], 2).values
    torch.testing.assert_close(combine(rewards, 2, batch_stats=(0.0, 1.0)).values, expected)
    ranges = {"a": (0.0, 5.0)}
    summed = combine(rewards, 2, how="weighted_sum", ranges=ranges).values
    torch.testing.assert_close(summed, expected, atol=1e-3, rtol=0)  # eps weighs more on a scale of 0..1


@pytest.mark.parametrize("how", ["gdpo", "weighted_sum"])
def test_a_row_whose_component_has_no_verdict_leaves_every_mean_and_the_loss(how):
    # row 1 has no b: its a = 9 must not move the mean of a over rows 0, 2, 3
    ranges = {"a": (0.0, 9.0), "b": (0.0, 9.0)}
    rewards = tensors(a=[0.0, 9, 1, 2], b=[0.0, NAN, 1, 2])
    others = tensors(a=[0.0, 1, 2], b=[0.0, 1, 2])
    result = combine(rewards, 4, how=how, ranges=ranges)
    torch.testing.assert_close(result.values[[0, 2, 3]], combine(others, 3, how=how, ranges=ranges).values)
    assert result.valid.tolist() == [True, False, True, True] and result.values[1] == 0
    assert result.num_no_verdict == 1


@pytest.mark.parametrize("how", ["gdpo", "weighted_sum"])
def test_a_component_that_does_not_apply_contributes_nothing_and_is_no_failure(how):
    # b is about the first prompt only; the second prompt's rows are as if there were a alone
    rewards = tensors(a=[0.0, 1, 0, 2], b=[1.0, 0, NAN, NAN])
    options = {"batch_stats": (0.0, 1.0)} if how == "gdpo" else {"how": how, "ranges": {"a": (0, 2), "b": (0, 1)}}
    result = combine(rewards, 2, applies={"b": torch.tensor([True, True, False, False])}, **options)
    assert result.valid.all() and result.num_no_verdict == 0
    scale = 2 if how == "gdpo" else 1  # of (0, 2): std sqrt(2); on a scale of 0..1 (0, 1): 1 / sqrt(2)
    expected = 0.5 * scale / (scale / math.sqrt(2) + 1e-4)
    assert result.values[2:].tolist() == pytest.approx([-expected, expected])


def test_where_a_reward_applies_to_some_rows_of_a_group_the_others_are_neither_worse_nor_better_for_it():
    # a is flat; b applies to rows 0 and 1: mean 0.5, so that (1, 0, -, -) is (+0.5, -0.5, 0, 0) before the scale
    rewards = tensors(a=[1.0, 1, 1, 1], b=[1.0, 0, NAN, NAN])
    applies = {"b": torch.tensor([True, True, False, False])}
    result = combine(rewards, 4, how="weighted_sum", ranges={"a": (0, 1), "b": (0, 1)}, applies=applies)
    assert result.values[0] == -result.values[1] > 0
    assert result.values[2:].tolist() == [0.0, 0.0] and result.valid.all()


def test_a_row_to_which_nothing_applies_leaves_the_loss_and_is_not_counted_as_a_failure():
    applies = {"a": torch.tensor([True, True, False])}
    result = combine(tensors(a=[0.0, 1, NAN]), 3, applies=applies)
    assert result.valid.tolist() == [True, True, False] and result.num_no_verdict == 0


@pytest.mark.parametrize("how", ["gdpo", "weighted_sum"])
def test_groups_without_spread_have_advantage_exactly_zero_and_small_groups_are_dropped(how):
    rewards = tensors(a=[0.1, 0.1, 0.1, 0.0, 1, 0, 0.0, NAN, NAN], b=[0.7, 0.7, 0.7, 0, 1, 1, 0, 1, 1])
    result = combine(rewards, 3, how=how, ranges={"a": (0, 1), "b": (0, 1)})
    assert result.values[:3].tolist() == [0.0] * 3 and result.zero_variance.tolist() == [True, False, False]
    assert result.dropped.tolist() == [False, False, True] and not result.valid[6:].any()
    assert (result.num_no_verdict, result.num_zero_variance_groups, result.num_dropped_groups) == (2, 1, 1)


def test_a_reward_of_weight_zero_is_not_looked_at():
    rewards = tensors(a=[0.0, 1], b=[NAN, 1e9])
    result = combine(rewards, 2, {"a": 1.0, "b": 0.0}, ranges={"b": (0, 1)})
    torch.testing.assert_close(result.values, combine(tensors(a=[0.0, 1]), 2).values)
    assert result.valid.all()


def test_gdpo_split_over_ranks_gives_the_values_of_the_whole_batch():
    torch.manual_seed(0)
    rewards = {name: torch.rand(12, dtype=torch.float64) for name in "ab"}
    rewards["a"][5] = NAN
    whole = combine(rewards, 4)
    parts = [
        combine({n: r[rows] for n, r in rewards.items()}, 4, batch_stats=(0.0, 1.0))
        for rows in (slice(4), slice(4, 12))
    ]
    stats = (batch_moments(parts[0]) + batch_moments(parts[1])).stats()
    torch.testing.assert_close(torch.cat([batch_normalized(part, stats).values for part in parts]), whole.values)


def test_moments_add_up_to_mean_and_std_with_n_minus_1():
    # 1, 2, 6: mean 3, std sqrt((4 + 1 + 9) / 2) = sqrt(7)
    moments = BatchMoments(2, 3.0, 5.0) + BatchMoments(1, 6.0, 36.0)
    assert moments.stats(eps=0.0) == pytest.approx((3.0, math.sqrt(7)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"how": "sum"}, "'gdpo' or 'weighted_sum'"),
        ({"how": "weighted_sum", "ranges": {"a": (0, 9)}}, "reward 'b' has no range"),
        ({"ranges": {"a": (0, 9), "b": (0, 1)}}, "reward 'b' has the value 7 outside its range"),
        ({"ranges": {"a": (9, 0)}}, "range of reward 'a'"),
        ({"ranges": {"c": (0, 1)}}, r"ranges names \['c'\]"),
        ({"applies": {"c": torch.ones(2).bool()}}, r"applies names \['c'\]"),
        ({"applies": {"a": torch.ones(2)}}, r"applies\['a'\] is torch.float32"),
        ({"weights": {"a": 1.0}}, "give each reward a weight"),
        ({"weights": {"a": 0.0, "b": 0.0}}, "at least one of them not 0"),
        ({"how": "weighted_sum", "batch_stats": (0, 1)}, "Leave it out"),
        ({"batch_stats": (0.0, 0.0)}, "std above 0"),
    ],
)
def test_settings_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        combine(tensors(a=[0.0, 9], b=[0.5, 7]), 2, **options)
