"""`check` passes what is right and fails what is wrong, by limits that follow from rounding alone.

`bench/check_power.py` runs twenty seeds on larger checkpoints; here are a few on a small one.
"""

import dataclasses
import math
from typing import Any

import pytest
import torch
from bench.check_power import BREAKS, BrokenPolicy

from thinkdraw.policies import load_policy
from thinkdraw.policies.check import check_policy
from thinkdraw.policies.rounding import RMS_TIMES, STANDARD_ERRORS, Deviation, random_rounding, rounded_log_probs
from thinkdraw.types import Prompt, Sampling


@pytest.fixture(scope="module", params=["bf16", pytest.param("fp32", marks=pytest.mark.slow)])
def breakable(request, checkpoint) -> BrokenPolicy:
    policy: Any = load_policy(checkpoint, dtype=request.param, precision=request.param)
    policy.__class__ = BrokenPolicy
    return policy


@pytest.mark.parametrize("name", BREAKS)
def test_a_sound_policy_passes_and_every_break_of_the_scorer_fails(breakable, name):
    BrokenPolicy.change = BREAKS[name]
    result = check_policy(breakable)
    assert result.ok == (name == "none"), result.as_dict()
    unrelated = [row.name for row in result.rows[len(result.deviations) + 1 :] if not row.ok]
    assert unrelated == []  # a break shows in log-probs alone


def test_a_scorer_of_nan_fails(checkpoint):
    policy: Any = load_policy(checkpoint)
    score = policy.log_probs
    policy.log_probs = lambda rollouts: dataclasses.replace(
        score(rollouts), log_probs=torch.full_like(rollouts.log_probs, math.nan)
    )
    policy.thought_formats = ("off",)
    result = check_policy(policy)
    assert not result.ok and not any(d.ok for d in result.deviations.values())


def test_limits_by_hand():
    # rounding: two tokens off by 0.3 and −0.3: rms 0.3. log-prob + entropy: 1 and −2, squares add up to 5.
    rounding, excess = torch.tensor([0.3, -0.3]), torch.tensor([1.0, -2.0])
    found = Deviation.of(torch.tensor([0.1, 0.5]), rounding, excess, floor=1e-4)
    assert found.rms == pytest.approx(math.sqrt((0.01 + 0.25) / 2)) and found.mean == pytest.approx(0.3)
    assert found.tilt == pytest.approx((0.1 * 1 - 0.5 * 2) / 5) and found.largest == pytest.approx(0.5)
    assert found.rms_limit == pytest.approx(RMS_TIMES * 0.3)
    assert found.mean_limit == pytest.approx(STANDARD_ERRORS * 0.3 / math.sqrt(2) + 0.09)
    assert found.tilt_limit == pytest.approx(STANDARD_ERRORS * 0.3 * math.sqrt(5) / 5)
    # Without any rounding, fp32's floor is left.
    exact = Deviation.of(torch.tensor([1e-4, -1e-4]), torch.zeros(2), excess, floor=1e-4)
    assert exact.rms_limit == exact.mean_limit == exact.tilt_limit == 1e-4 and exact.ok


def test_a_temperature_that_is_off_tilts_log_probs_by_as_much():
    # log p at temperature 1.05 is about lp − 0.05 (lp + H): a slope of −0.05.
    logits = torch.randn(400, 30, generator=torch.Generator().manual_seed(0))
    right, wrong = logits.log_softmax(-1), (logits / 1.05).log_softmax(-1)
    entropy = -(right.exp() * right).sum(-1)
    found = Deviation.of((wrong - right)[:, 0], torch.zeros(400), right[:, 0] + entropy, floor=0.0)
    assert found.tilt == pytest.approx(-0.05, abs=0.005)


def test_random_rounding_moves_scores_as_far_as_the_dtype_rounds_and_ends_with_the_block(checkpoint):
    rms = {}
    for precision in ("fp32", "bf16"):
        policy = load_policy(checkpoint, precision=precision)
        drawn = policy.sample([Prompt("a red circle")], Sampling(max_thought_tokens=8), group_size=4, decode=False)
        with torch.no_grad():
            before = policy.log_probs(drawn).log_probs
            moved = rounded_log_probs(policy, drawn) - before
            assert torch.equal(policy.log_probs(drawn).log_probs, before)
        rms[precision] = float(moved[drawn.mask].square().mean().sqrt())
        with random_rounding(policy):
            assert any(module._forward_hooks for block in policy.blocks for module in block.modules())
    # 2⁻⁷ and 2⁻²³ are the spacings of bf16 and fp32 above 1.
    assert 0 < rms["fp32"] < 1e-5 and 1e-3 < rms["bf16"] < 0.3
