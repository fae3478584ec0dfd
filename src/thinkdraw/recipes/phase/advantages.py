"""Rewards → advantages: within each group first, then over the whole phase.

The first stage tells which groups have no spread, which a phase may replace; the second needs all groups, and so comes last.
"""

import dataclasses
import math

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.objectives import ADVANTAGES, Advantages, BatchMoments, batch_moments, batch_normalized, combine, kl_k1
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.token_credit import compute_token_weights
from thinkdraw.training.batch import Batch, split_rows
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Reward, Rollouts, Verdicts

OVER_THE_BATCH = ("reinforce++", "reinforce++_baseline")  # advantages that are normalised over the whole phase
# `batch_stats` that change nothing (mean 0, std 1): a few groups come at a time, and `finish_advantages` normalises over all.
NOT_YET_NORMALISED = (0.0, 1.0)


def add_group_advantages(policy: Policy, reward: Reward, batch: Batch, config: GrpoConfig) -> Batch:
    """Add advantages to whole groups, as far as these groups alone decide them."""
    verdicts = batch.verdicts
    assert verdicts is not None
    if config.beta > 0 and config.kl == "k1":
        verdicts = _with_kl_penalty(policy, batch.rollouts, verdicts, config)
    if config.combine == "sum":
        advantages = _from_rewards(verdicts.rewards, config)
    else:
        advantages = _from_parts(reward, verdicts, config)
    device = policy.device  # verdicts stay on the CPU; advantages go where the loss is computed
    moved = dataclasses.replace(
        advantages, values=advantages.values.to(device), valid=advantages.valid.to(device),
        zero_variance=advantages.zero_variance.to(device), dropped=advantages.dropped.to(device),
    )  # fmt: skip
    return dataclasses.replace(batch, verdicts=verdicts, advantages=moved)


def finish_advantages(policy: Policy, batch: Batch, config: GrpoConfig, world: World) -> Batch:
    """Finish the advantages of a phase, when all its groups are there.

    Normalises over the phase (all processes), weighs tokens, and leaves rows out of the loss, as the settings say.
    """
    assert batch.advantages is not None
    if config.advantage in OVER_THE_BATCH or config.combine == "gdpo":
        moments = BatchMoments(**world.sum(dataclasses.asdict(batch_moments(batch.advantages))))
        batch = dataclasses.replace(batch, advantages=batch_normalized(batch.advantages, moments.stats()))
    if config.token_weights and len(batch):
        weights = compute_token_weights(config.token_weights, policy, batch.to(policy.device), config.micro_rows)
        batch = dataclasses.replace(batch, token_weights=weights)
    return batch if config.keep_extremes is None else keep_extremes(batch, config.keep_extremes)


def keep_extremes(batch: Batch, keep: int) -> Batch:
    """Keep only the `keep` best and `keep` worst rollouts of each group in the loss.

    They are ranked by advantage, and the advantages stay as they are. Rewards would not do: with several parts, their sum
    can rank a group in another order than the advantages that are learned from.
    """
    advantages = batch.advantages
    assert advantages is not None
    judged = advantages.valid.reshape(-1, batch.group_size)
    values = advantages.values.reshape(-1, batch.group_size).masked_fill(~judged, -math.inf)
    # The argsort of an argsort is each rollout's rank in its group, here from the worst to the best.
    rank = values.argsort(dim=1, stable=True).argsort(1)
    num_verdicts = judged.sum(1, keepdim=True)
    rank = rank - (batch.group_size - num_verdicts)  # rows without a verdict come first: their ranks become negative
    kept = (rank < keep) | (rank >= num_verdicts - keep)
    valid = advantages.valid & kept.reshape(-1)
    return dataclasses.replace(batch, advantages=dataclasses.replace(advantages, valid=valid))


def summed_log_ratio(policy: Policy, rollouts: Rollouts, micro_rows: int, *, recomputed: bool = False) -> Tensor:
    """Estimate each rollout's KL to the reference by k1: Σ (lp − lp_ref).

    The sum is over the rollout's trained tokens. Returns (B,) nats; unbiased, though a single estimate may be negative.
    recomputed: lp is of a training pass, like lp_ref, and not the sampler's. In bf16 these round differently, and the
        difference would be taken for KL: it is 0 while policy and reference are the same only if both are alike.
    """
    parts = [torch.zeros(0)]
    for rows in split_rows(torch.arange(len(rollouts)), micro_rows):
        micro = rollouts.select(rows)
        with torch.no_grad():
            log_probs = policy.log_probs(micro).log_probs if recomputed else micro.log_probs
            with policy.reference():
                reference = policy.log_probs(micro).log_probs
        log_ratio = kl_k1(log_probs.to(reference.device), reference)
        parts.append(log_ratio.masked_fill(~micro.mask.to(log_ratio.device), 0.0).sum(1).cpu())
    return torch.cat(parts)


def _with_kl_penalty(policy: Policy, rollouts: Rollouts, verdicts: Verdicts, config: GrpoConfig) -> Verdicts:
    """Subtract beta times each row's KL to the reference from its reward.

    The KL is logged as a part of the reward.
    """
    kl = summed_log_ratio(policy, rollouts, config.micro_rows, recomputed=config.old_log_probs == "recomputed")
    return dataclasses.replace(
        verdicts, rewards=verdicts.rewards - config.beta * kl, parts={**verdicts.parts, "kl": kl}
    )


def _from_rewards(rewards: Tensor, config: GrpoConfig) -> Advantages:
    """Compute advantages of whole groups from one reward per rollout."""
    name = config.advantage or ("dr_grpo" if config.variant == "dr_grpo" else "group")
    batch_stats = {"batch_stats": NOT_YET_NORMALISED} if name in OVER_THE_BATCH else {}
    return ADVANTAGES[name](rewards, config.group_size, **batch_stats)


def _from_parts(reward: Reward, verdicts: Verdicts, config: GrpoConfig) -> Advantages:
    """Compute advantages from a reward of several parts.

    Raises UserError for a reward without weights for its parts.
    """
    weights = reward.weights
    if weights is None or config.combine == "sum":  # never "sum" here, which the type checker cannot know
        raise UserError(
            f"combine={config.combine} needs a reward of several parts, but {reward.name} is a single one. Set "
            "reward.name=combined with reward.settings.rewards, or combine=sum."
        )
    try:
        return combine(
            {name: verdicts.parts[name] for name in weights}, config.group_size, weights, how=config.combine,
            ranges=config.ranges or None, applies=verdicts.part_applies or None,
            batch_stats=NOT_YET_NORMALISED if config.combine == "gdpo" else None,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"combine={config.combine}: {error}") from error
