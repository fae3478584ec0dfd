"""Losses as papers run them: without guidance, with one mean over both modalities, with truncated importance weights."""

import dataclasses
import math

import pytest
import torch
from tests.recipes.test_grpo import order_of, relative_difference
from tests.training.helpers import LowCodes, grpo_config, grpo_gradients

from thinkdraw.config import load_config
from thinkdraw.errors import UserError
from thinkdraw.objectives import clipped_loss
from thinkdraw.policies import load_policy
from thinkdraw.recipes import grpo, preference
from thinkdraw.recipes.phase.rollout import sample_phase
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.run import open_policy
from thinkdraw.training.world import World
from thinkdraw.types import Prompt, Sampling

CONDITIONAL = {
    "sampling": Sampling(max_thought_tokens=6, guidance_scale=3.0), "guidance_in_loss": "conditional",
    "old_log_probs": "recomputed",
}  # fmt: skip


def test_without_guidance_the_same_tokens_are_scored_as_if_sampled_without(policy):
    model = load_policy(policy, precision="fp32")
    guided = model.sample([Prompt("a red circle")], CONDITIONAL["sampling"], group_size=3)
    plain = guided.without_guidance()
    assert plain.sampling.guidance_scale == 1 and torch.equal(plain.tokens, guided.tokens)
    as_sampled = dataclasses.replace(guided, sampling=Sampling(max_thought_tokens=6), allowed=None)
    torch.testing.assert_close(model.log_probs(plain).log_probs, model.log_probs(as_sampled).log_probs)
    assert (model.log_probs(plain).log_probs - guided.log_probs)[guided.mask & guided.is_image].abs().max() > 0.1


@pytest.mark.parametrize("minibatches", [1, 2])
def test_a_conditional_run_begins_on_policy_and_learns(tmp_path, policy, minibatches):
    config = grpo_config(tmp_path, policy, max_steps=2, minibatches=minibatches, **CONDITIONAL)
    rows = MetricsLog.read(grpo.run(config, LowCodes()) / "metrics.jsonl")
    assert rows[0]["ratio_max_deviation"] < 1e-4 and rows[0]["grad_norm"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance_in_loss": "conditional", "old_log_probs": "recomputed"}, "there is none"),
        (CONDITIONAL | {"old_log_probs": "sampled"}, "needs old_log_probs=recomputed"),
        (CONDITIONAL | {"token_weights": "guidance_contrast"}, "reads guidance"),
        ({"reduction": "token"}, "variant=grpo averages otherwise"),
        ({"importance_cap": 2.0}, "set old_log_probs=recomputed"),
        ({"importance_cap": 2.0, "old_log_probs": "recomputed", "variant": "gspo"}, "one ratio per segment"),
    ],
)
def test_settings_that_nothing_would_read_are_refused(tmp_path, policy, changes, message):
    with pytest.raises(ValueError, match=message):
        grpo_config(tmp_path, policy, **changes)


def test_importance_weights_by_hand_are_truncated_and_have_no_gradient(policy):
    rollouts = load_policy(policy, precision="fp32").sample([Prompt("a cat")], Sampling(max_thought_tokens=4))
    old = (rollouts.log_probs + math.log(1.5)).requires_grad_()
    weights = grpo.importance_weights(old, rollouts, 2.0)
    assert (
        weights[rollouts.mask].tolist() == pytest.approx([1.5] * int(rollouts.mask.sum())) and not weights.requires_grad
    )
    assert grpo.importance_weights(old, rollouts, 1.2)[rollouts.mask].max() == pytest.approx(1.2)
    assert (grpo.importance_weights(old, rollouts, 2.0)[~rollouts.mask] == 1).all()


@pytest.mark.parametrize("minibatches", [1, 2])
def test_on_policy_in_fp32_importance_weights_are_1_and_change_nothing(tmp_path, policy, minibatches):
    changes = {"max_steps": 2, "minibatches": minibatches, "old_log_probs": "recomputed"}
    rows = [
        MetricsLog.read(
            grpo.run(grpo_config(tmp_path / str(cap), policy, importance_cap=cap, **changes), LowCodes())
            / "metrics.jsonl"
        )
        for cap in (None, 2.0)
    ]
    assert rows[1][0]["importance_mean"] == pytest.approx(1, abs=1e-4) and rows[1][0]["importance_capped_frac"] == 0
    assert rows[1][0]["grad_norm"] == pytest.approx(rows[0][0]["grad_norm"], rel=1e-3)
    assert "importance_mean" not in rows[0][0]


def test_one_mean_over_both_modalities_by_hand():
    # One row: two text tokens and one image token, ratio 1, advantages 3: every token's term is −3·w.
    log_probs = torch.tensor([[-1.0, -2.0, -3.0]], requires_grad=True)
    mask, is_image = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[False, False, True]])
    loss = clipped_loss(
        log_probs, log_probs.detach(), torch.tensor([3.0]), mask, is_image, variant="dapo", denominator="all",
        text_weight=2.0, image_weight=1.0,
    ).loss  # fmt: skip
    assert loss.item() == pytest.approx(-(2 * 3 + 2 * 3 + 3) / 3)
    loss.backward()
    assert log_probs.grad is not None and log_probs.grad[0].tolist() == pytest.approx([-2.0, -2.0, -1.0])


def test_any_split_gives_the_same_gradient_of_one_mean(tmp_path, policy):
    whole = grpo_config(
        tmp_path, policy, micro_rows=64, variant="dapo", reduction="token", reward={"name": "x"}, **CONDITIONAL
    )
    world, model = World(whole), open_policy(whole, World(whole))
    batch = sample_phase(model, as_reward(LowCodes()), order_of(whole), whole, 0, world).batch
    first, _ = grpo_gradients(whole, model, batch, (0.0, 0.0))
    second, _ = grpo_gradients(whole.model_copy(update={"micro_rows": 2}), model, batch, (0.0, 0.0))
    assert relative_difference(first, second) < 1e-5


def test_preference_scores_policy_and_reference_without_guidance_and_refuses_where_there_is_none(tmp_path, policy):
    def config(name: str, *changes: str) -> preference.PreferenceConfig:
        overrides = [
            "recipe=preference", f"out={tmp_path / name}", f"policy={policy}", "device=cpu", "precision=fp32",
            "judge=low-codes", "sample.rewards=['tests.training.helpers:LowCodes']", "max_steps=1", "pairs_per_step=2",
            "guidance_in_loss=conditional", "sample.count=3", "sample.group_size=4",
            "sample.sampling.max_thought_tokens=4",
        ]  # fmt: skip
        return load_config(preference.PreferenceConfig, None, [*overrides, *changes])

    with pytest.raises(UserError, match="were sampled without"):
        preference.run(config("a"))
    folder = preference.run(config("b", "sample.sampling.guidance_scale=3"))
    (row,) = MetricsLog.read(folder / "metrics.jsonl")
    assert row["margin_mean"] == pytest.approx(0, abs=1e-5) and row["grad_norm"] > 0
