"""Options of GRPO: kinds of advantage and of KL, a reference that follows, and what is not paid for when it is off."""

import dataclasses
from typing import Any

import pytest
import torch
from tests.training.helpers import LowCodes, flat, grpo_config, grpo_gradients, policy_dir, rows_without_times

from thinkdraw.errors import UserError
from thinkdraw.objectives import ADVANTAGES
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.recipes import grpo
from thinkdraw.recipes.phase.advantages import finish_advantages
from thinkdraw.recipes.phase.prompt_order import PromptOrder
from thinkdraw.recipes.phase.rollout import sample_phase
from thinkdraw.recipes.phase.stats import phase_stats
from thinkdraw.recipes.phase.token_credit import compute_token_weights
from thinkdraw.rewards.combined import CombinedReward
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.training.run import open_policy
from thinkdraw.training.world import World
from thinkdraw.types import Rollouts


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    return policy_dir(tmp_path_factory.mktemp("policy"))


def phase_of(config, model=None, reward=None):
    world = World(config)
    order = PromptOrder.of(config.prompts, [], 0, None)
    model = model or open_policy(config, world)
    phase = sample_phase(model, as_reward(reward or LowCodes()), order, config, 0, world)
    return dataclasses.replace(phase, batch=finish_advantages(model, phase.batch, config, world))


@pytest.mark.parametrize("name", ADVANTAGES)
def test_every_advantage_is_the_one_of_its_name(tmp_path, policy, name):
    part = phase_of(grpo_config(tmp_path, policy, advantage=name)).batch
    wanted = ADVANTAGES[name](part.rewards, 4)
    assert torch.allclose(part.advantages.values, wanted.values, atol=1e-6)
    assert float(part.advantages.values.abs().max()) > 0


def test_dr_grpo_keeps_its_own_advantage_unless_told_otherwise(tmp_path, policy):
    own = phase_of(grpo_config(tmp_path, policy, variant="dr_grpo")).batch
    assert torch.equal(own.advantages.values, ADVANTAGES["dr_grpo"](own.rewards, 4).values)
    told = phase_of(grpo_config(tmp_path, policy, variant="dr_grpo", advantage="rloo")).batch
    assert torch.equal(told.advantages.values, ADVANTAGES["rloo"](told.rewards, 4).values)


@pytest.mark.parametrize("name", ["reinforce++", "reinforce++_baseline"])
def test_advantages_over_the_batch_do_not_depend_on_how_it_was_sampled(tmp_path, policy, name):
    """With refills a phase has several parts; they are normalised together."""
    phase = phase_of(grpo_config(tmp_path, policy, advantage=name, refill_rounds=1, prompts_per_phase=6))
    values = phase.batch.advantages.values[phase.batch.advantages.valid]
    assert float(values.std()) == pytest.approx(1, rel=1e-2)
    if name == "reinforce++":
        assert float(values.mean()) == pytest.approx(0, abs=1e-5)


def gradient(config, model, phase) -> torch.Tensor:
    return flat(grpo_gradients(config, model, phase.batch)[0])


@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
def test_every_kl_moves_a_policy_that_has_left_its_reference(tmp_path, policy, kl):
    config = grpo_config(tmp_path, policy, kl=kl, beta=0.5)
    model = open_policy(config, World(config))
    model.make_reference()
    with torch.no_grad():
        for weight in model.model.lm_head.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    phase = phase_of(config, model)
    plain = config.model_copy(update={"beta": 0.0})
    same = phase_of(plain, model) if kl == "k1" else phase  # k1 is in the rewards, the others are in the loss
    difference = gradient(config, model, phase) - gradient(plain, model, same)
    assert float(difference.norm()) > 1e-4
    if kl == "k1":
        part, unpaid = phase.batch, same.batch
        assert torch.allclose(part.rewards, unpaid.rewards - 0.5 * part.verdicts.parts["kl"])
        assert float(part.verdicts.parts["kl"].abs().max()) > 0.01


@pytest.mark.parametrize("old_log_probs", ["recomputed", "sampled"])
def test_k1_of_a_policy_that_is_its_reference_is_0_in_bf16_where_old_log_probs_are_recomputed(
    tmp_path, policy, old_log_probs
):
    settings: Any = {"kl": "k1", "beta": 0.5, "precision": "bf16", "old_log_probs": old_log_probs}
    config = grpo_config(tmp_path, policy, sampling={"guidance_scale": 5.0, "max_thought_tokens": 4}, **settings)
    model = open_policy(config, World(config))
    model.make_reference()
    largest = float(phase_of(config, model).batch.verdicts.parts["kl"].abs().max())
    # The sampler's log-probs round differently, over a hundred tokens and with guidance: nats that are no distance.
    assert largest == 0 if old_log_probs == "recomputed" else largest > 1e-3


def test_without_a_kl_no_reference_is_asked(tmp_path, policy, monkeypatch):
    def refuse(self):
        raise AssertionError("a reference was asked although beta is 0")

    monkeypatch.setattr(JanusPolicy, "reference", refuse)
    monkeypatch.setattr(JanusPolicy, "make_reference", refuse)
    for kl in ("k1", "k3"):
        grpo.run(grpo_config(tmp_path / kl, policy, kl=kl, refresh_reference_every=1, max_steps=1))


def test_a_reference_that_follows_survives_a_restart(tmp_path, policy):
    settings = {"beta": 0.1, "refresh_reference_every": 2, "save_every": 1, "sampling": {"max_thought_tokens": 4}}
    whole = grpo.run(grpo_config(tmp_path / "whole", policy, max_steps=4, **settings))
    rows = rows_without_times(whole)
    config = grpo_config(tmp_path / "parts", policy, max_steps=3, **settings)
    grpo.run(config)
    parts = grpo.run(config.model_copy(update={"max_steps": 4}))
    assert rows_without_times(parts) == rows
    kl = [row["kl_text"] + row["kl_image"] for row in rows]
    assert kl[0::2] == pytest.approx([0, 0], abs=1e-6) and min(kl[1::2]) > 1e-6


def test_adapters_have_no_reference_to_refresh(tmp_path, policy):
    with pytest.raises(ValueError, match="refresh_reference_every cannot be used with lora"):
        grpo_config(tmp_path, policy, beta=0.1, refresh_reference_every=1, lora={"rank": 2})


def perturbed(config):
    """A policy that is no longer its reference, in what it writes and in what it draws."""
    model = open_policy(config, World(config))
    model.make_reference()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in [*model.model.lm_head.parameters(), *model.model.model.generation_head.parameters()]:
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return model


# What each changes is measured against the same run without it; `with_it`: settings that it needs to be seen at all.
COEFFICIENTS = {
    "beta": ({"beta": 0.5}, {}),
    "text_weight": ({"text_weight": 3.0}, {}),
    "image_weight": ({"image_weight": 3.0}, {}),
    "clip_low": ({"clip_low": 1e-4}, {}),
    "clip_high": ({"clip_high": 1e-4}, {}),
    "variant dapo": ({"variant": "dapo"}, {}),
    "variant dr_grpo": ({"variant": "dr_grpo"}, {}),
    "variant gspo": ({"variant": "gspo"}, {}),
    "variant cispo": ({"variant": "cispo"}, {}),
    "advantage rloo": ({"advantage": "rloo"}, {}),
    "keep_extremes": ({"keep_extremes": 1}, {}),
    "rewrites": ({"rewrites": "pool"}, {}),
    "stage": ({"token_weights": "stage"}, {}),
    "critical": ({"token_weights": "critical"}, {}),
    "entropy_guided": ({"token_weights": "entropy_guided"}, {}),
    "guidance_contrast": ({"token_weights": "guidance_contrast"}, {}),
    "stage on the kl": ({"token_weights": "stage"}, {"beta": 0.5, "text_weight": 0.0, "image_weight": 0.0}),
}


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_every_option_changes_the_gradient_of_a_perturbed_policy(tmp_path, policy, name):
    change, with_it = COEFFICIENTS[name]
    plain = grpo_config(tmp_path, policy, **with_it)
    config = grpo_config(tmp_path, policy, **(with_it | change))
    model = perturbed(config)
    # Sampled before the policy moved, so that there is something to clip.
    before = open_policy(config, World(config))
    found = [gradient(c, model, phase_of(c, before)) for c in (config, plain)]
    assert float((found[0] - found[1]).norm()) > 1e-4 * float(found[1].norm())


class HighCodes(LowCodes):
    """The opposite wish, on a scale a hundred times larger."""

    name = "high-codes"

    def __call__(self, rollouts: Rollouts):
        return 100 * (rollouts.image_tokens() >= 48).float().mean(1).cpu()


def test_gdpo_lets_no_reward_dominate_by_its_scale_and_a_sum_does(tmp_path, policy):
    reward = CombinedReward({"low": LowCodes(), "high": HighCodes()})
    balanced = phase_of(grpo_config(tmp_path, policy, combine="gdpo"), reward=reward).batch
    summed = phase_of(grpo_config(tmp_path, policy), reward=reward).batch
    low, high = (balanced.verdicts.parts[name] for name in ("low", "high"))
    assert torch.allclose(summed.rewards, low + high)
    by_group = [part.reshape(-1, 4) for part in (low, high)]
    alone = sum((g - g.mean(1, keepdim=True)) / (g.std(1, keepdim=True) + 1e-4) for g in by_group).flatten()
    wanted = (alone - alone.mean()) / (alone.std() + 1e-4)
    assert torch.allclose(balanced.advantages.values.cpu(), wanted, atol=1e-3)
    assert not torch.allclose(balanced.advantages.values, summed.advantages.values, atol=0.1)


def test_weighted_sum_asks_for_ranges_and_uses_them(tmp_path, policy):
    reward = CombinedReward({"low": LowCodes(), "high": HighCodes()}, {"low": 1.0, "high": 2.0})
    ranges = {"low": (0.0, 1.0), "high": (0.0, 100.0)}
    part = phase_of(grpo_config(tmp_path, policy, combine="weighted_sum", ranges=ranges), reward=reward).batch
    total = part.verdicts.parts["low"] + 2 * part.verdicts.parts["high"] / 100
    assert torch.allclose(part.advantages.values, ADVANTAGES["group"](total, 4).values, atol=1e-4)
    with pytest.raises(UserError, match="'low' has no range"):
        phase_of(grpo_config(tmp_path, policy, combine="weighted_sum"), reward=reward)


def test_combining_needs_parts_and_says_so(tmp_path, policy):
    with pytest.raises(UserError, match=r"combine=gdpo needs a reward of several parts, but low-codes is a single one"):
        phase_of(grpo_config(tmp_path, policy, combine="gdpo"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"variant": "gspo", "token_weights": "stage"}, "one advantage per segment"),
        ({"variant": "gspo", "clip_low": 0.2, "clip_high": 0.2}, "never acts"),
        ({"variant": "cispo", "clip_high": 0.2}, "clips no ratio"),
        ({"variant": "grpo", "cispo_max": 3.0}, "for variant=cispo alone"),
        ({"combine": "gdpo", "advantage": "rloo"}, "leave out advantage"),
        ({"combine": "gdpo", "beta": 0.1, "kl": "k1"}, "use k2 or k3"),
    ],
)
def test_settings_that_would_do_nothing_together_are_refused(tmp_path, policy, settings, says):
    with pytest.raises(ValueError, match=says):
        grpo_config(tmp_path, policy, **settings)


def test_guidance_contrast_weighs_tokens_by_what_the_prompt_changes(tmp_path, policy):
    config = grpo_config(tmp_path, policy)
    model = open_policy(config, World(config))
    part = phase_of(config, model).batch
    found = compute_token_weights("guidance_contrast", model, part, 8)
    picture = part.rollouts.is_image & part.rollouts.mask
    assert torch.equal(found.advantage[~picture], torch.ones(int((~picture).sum())))
    sums = (found.advantage * picture).sum(1) / picture.sum(1)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-4) and float(found.advantage[picture].std()) > 0.01


def test_a_phase_judged_in_chunks_is_the_same_phase(tmp_path, policy):
    whole = phase_of(grpo_config(tmp_path, policy, prompts_per_phase=5))
    chunked = phase_of(grpo_config(tmp_path, policy, prompts_per_phase=5, judge_chunks=3))
    assert len(chunked.batch) == 20 and torch.equal(chunked.verdicts.rewards, whole.verdicts.rewards)
    assert torch.equal(chunked.batch.groups, whole.batch.groups)
    assert torch.allclose(chunked.batch.advantages.values, whole.batch.advantages.values)


class ForSomePrompts(LowCodes):
    """Has nothing to say of prompts with an odd number of letters."""

    name = "even-only"

    def __call__(self, rollouts: Rollouts):
        return super().__call__(rollouts).masked_fill(~self.applies(rollouts), torch.nan)

    def applies(self, rollouts: Rollouts):
        return torch.tensor([len(prompt.text) % 2 == 0 for prompt in rollouts.prompts])


def test_what_does_not_apply_is_no_missing_verdict(tmp_path, policy):
    config = grpo_config(tmp_path, policy, prompts_per_phase=8)
    phase = phase_of(config, reward=ForSomePrompts())
    assert bool(phase.verdicts.rewards.isnan().any()) and not bool(phase.verdicts.rewards.isnan().all())
    assert phase_stats(phase.batch, phase.verdicts, config, World(config))["no_verdict_frac"] == 0


@pytest.mark.parametrize("coefficients", [(0.1, 0.0), (0.0, 0.1)], ids=["text", "image"])
def test_each_entropy_coefficient_changes_the_gradient(tmp_path, policy, coefficients):
    config = grpo_config(tmp_path, policy)
    model = open_policy(config, World(config))
    phase = phase_of(config, model)
    found = [flat(grpo_gradients(config, model, phase.batch, pair)[0]) for pair in (coefficients, (0.0, 0.0))]
    assert float((found[0] - found[1]).norm()) > 1e-4 * float(found[1].norm())


def test_photographs_are_refused_for_the_labs_detector_before_the_policy_is_loaded(tmp_path):
    (tmp_path / "mine.txt").write_text("a dog on a sofa\na cat\n")
    source = {"source": str(tmp_path / "mine.txt")}
    config = grpo_config(tmp_path, "nowhere", prompts=source, validation={"every": 0}, reward={"name": "lab-detector"})
    with pytest.raises(UserError, match="reward lab-detector cannot judge 2 of 2 prompts"):
        grpo.run(config)
