import math

import pytest
import torch

from thinkdraw.objectives import ADVANTAGES
from thinkdraw.objectives.advantages import batch_moments, batch_normalized, group_normalized, leave_one_out
from thinkdraw.objectives.advantages import reinforce_plus_plus as rpp

NAN = math.nan


def test_advantage_is_reward_minus_group_mean_over_std_with_n_minus_1():
    # group (1, 2, 3): mean 2, std sqrt((1 + 0 + 1) / 2) = 1  ->  ∓1 / 1.0001.  group (0, 0, 3): mean 1, std sqrt(3)
    result = group_normalized(torch.tensor([1.0, 2, 3, 0, 0, 3]), 3)
    root = math.sqrt(3) + 1e-4
    expected = torch.tensor([-1 / 1.0001, 0, 1 / 1.0001, -1 / root, -1 / root, 2 / root])
    torch.testing.assert_close(result.values, expected)
    assert result.valid.all() and not result.zero_variance.any()


def test_without_std_the_advantage_is_the_centred_reward():
    result = group_normalized(torch.tensor([1.0, 5.0]), 2, scale_by_std=False)
    assert result.values.tolist() == [-2.0, 2.0]


def test_a_row_without_verdict_leaves_mean_and_std_of_its_group():
    # (1, NaN, 3): mean 2, std sqrt(2)  ->  ∓1 / (1.4142 + 0.0001), and the NaN row is 0 and not valid
    result = group_normalized(torch.tensor([1.0, NAN, 3.0]), 3)
    expected = 1 / (math.sqrt(2) + 1e-4)
    torch.testing.assert_close(result.values, torch.tensor([-expected, 0.0, expected]))
    assert result.valid.tolist() == [True, False, True]
    assert result.num_no_verdict == 1


@pytest.mark.parametrize("advantages", [group_normalized, leave_one_out])
def test_a_group_with_fewer_than_two_verdicts_is_dropped_and_counted(advantages):
    result = advantages(torch.tensor([1.0, NAN, NAN, NAN, 0.0, 1.0]), 2)
    assert result.valid.tolist() == [False, False, False, False, True, True]
    assert result.values[:4].tolist() == [0.0] * 4
    assert result.dropped.tolist() == [True, True, False]
    assert (result.num_dropped_groups, result.num_no_verdict, result.num_zero_variance_groups) == (2, 3, 0)


@pytest.mark.parametrize("advantages", [group_normalized, leave_one_out])
def test_a_group_of_equal_rewards_is_counted_and_has_advantage_exactly_zero(advantages):
    # The float32 mean of three times 0.1 is not 0.1: without the exact rule the advantage would be about 1e-4.
    result = advantages(torch.tensor([0.1, 0.1, 0.1, 0.0, 1.0, NAN]), 3)
    assert result.values[:3].tolist() == [0.0, 0.0, 0.0]
    assert result.zero_variance.tolist() == [True, False]
    assert result.num_zero_variance_groups == 1
    assert result.valid.tolist() == [True] * 5 + [False]


def test_leave_one_out_subtracts_the_mean_of_the_others():
    # (1, 2, 6): 1 − 4, 2 − 3.5, 6 − 1.5.  (1, NaN, 3): 1 − 3, nothing, 3 − 1
    result = leave_one_out(torch.tensor([1.0, 2, 6, 1, NAN, 3]), 3)
    torch.testing.assert_close(result.values, torch.tensor([-3.0, -1.5, 4.5, -2.0, 0.0, 2.0]))


@pytest.mark.parametrize("advantages", [group_normalized, leave_one_out])
def test_a_group_of_one_is_refused_with_the_way_out(advantages):
    with pytest.raises(ValueError, match=r"needs at least 2\. Raise group_size, or choose reinforce\+\+"):
        advantages(torch.tensor([1.0, 2.0]), 1)


def test_rewards_that_are_not_whole_groups_are_refused():
    with pytest.raises(ValueError, match="Keep whole groups together"):
        group_normalized(torch.ones(5), 2)


def test_an_infinite_reward_is_refused():
    with pytest.raises(ValueError, match="1 infinite values"):
        group_normalized(torch.tensor([1.0, math.inf]), 2)


def test_reinforce_plus_plus_normalises_over_the_batch_with_one_rollout_per_prompt():
    # (1, 2, NaN, 6): mean 3, std sqrt((4 + 1 + 9) / 2) = sqrt(7)
    result = rpp(torch.tensor([1.0, 2, NAN, 6]))
    std = math.sqrt(7) + 1e-4
    torch.testing.assert_close(result.values, torch.tensor([-2 / std, -1 / std, 0, 3 / std]))
    assert result.valid.tolist() == [True, True, False, True]
    assert (result.num_no_verdict, result.num_dropped_groups) == (1, 1)


def test_reinforce_plus_plus_gives_a_group_of_equal_rewards_an_advantage_and_its_baseline_does_not():
    # (1, 1), (0, 4): mean 1.5, std sqrt((1/4 + 1/4 + 9/4 + 25/4) / 3) = sqrt(3).
    rewards = torch.tensor([1.0, 1, 0, 4])
    expected = torch.tensor([-0.5, -0.5, -1.5, 2.5]) / (math.sqrt(3) + 1e-4)
    result = rpp(rewards, 2)
    torch.testing.assert_close(result.values, expected)
    assert not result.zero_variance.any()
    # minus group means (0, 0, -2, 2): mean 0, std sqrt(8 / 3)
    result = rpp(rewards, 2, baseline=True)
    torch.testing.assert_close(result.values, torch.tensor([0.0, 0, -2, 2]) / (math.sqrt(8 / 3) + 1e-4))
    assert result.zero_variance.tolist() == [True, False] and result.values[:2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("baseline", [False, True])
def test_reinforce_plus_plus_in_parts_with_the_stats_of_the_whole_is_the_whole(baseline):
    rewards = torch.tensor([1.0, 5, 0, 4, NAN, 2, 3, 3])
    parts = [rpp(r, 2, baseline=baseline, batch_stats=(0.0, 1.0)) for r in rewards.split((2, 6))]
    stats = (batch_moments(parts[0]) + batch_moments(parts[1])).stats()
    torch.testing.assert_close(
        torch.cat([batch_normalized(part, stats).values for part in parts]), rpp(rewards, 2, baseline=baseline).values
    )


def test_reinforce_plus_plus_of_one_verdict_or_equal_rewards_teaches_nothing():
    assert rpp(torch.tensor([NAN, 3.0])).values.tolist() == [0.0, 0.0]
    assert rpp(torch.full((6,), 0.1)).values.abs().max() < 1e-9


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("group", [-1 / 1.0001, 0, 1 / 1.0001]),
        ("dr_grpo", [-1.0, 0, 1]),
        ("rloo", [-1.5, 0, 1.5]),
        ("reinforce++", [-1 / 1.0001, 0, 1 / 1.0001]),  # a batch of one group
        ("reinforce++_baseline", [-1 / 1.0001, 0, 1 / 1.0001]),
    ],
)
def test_the_registry_gives_advantages_of_rewards_and_group_size(name, expected):
    # (1, 2, 3): mean 2, std 1
    torch.testing.assert_close(ADVANTAGES[name](torch.tensor([1.0, 2, 3]), 3).values, torch.tensor(expected))


def test_the_baseline_of_a_group_needs_two_rollouts():
    with pytest.raises(ValueError, match="needs at least 2"):
        rpp(torch.tensor([1.0, 2.0]), 1, baseline=True)
