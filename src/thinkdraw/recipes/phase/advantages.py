"""Rewards → advantages, in two stages: within each group as it is sampled, then what needs all groups of the phase."""

import dataclasses
import math

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.objectives import ADVANTAGES, Advantages, BatchMoments, batch_moments, batch_normalized, combine, kl_k1
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.token_credit import token_credit
from thinkdraw.training.batch import Batch, parts_of
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Reward, Rollouts, Verdicts

OVER_THE_BATCH = ("reinforce++", "reinforce++_baseline")  # advantages that are normalised over the whole phase
# For `batch_stats`: mean and std that change nothing. Groups come a few at a time; `finish_credit` normalises over all.
NOT_YET_NORMALISED = (0.0, 1.0)


def with_advantages(policy: Policy, reward: Reward, batch: Batch, config: GrpoConfig) -> Batch:
    """Add advantages to a batch of whole groups; see `finish_credit` for those that are normalised over the phase."""
    verdicts = batch.verdicts
    assert verdicts is not None
    if config.beta > 0 and config.kl == "k1":
        verdicts = _with_kl_penalty(policy, batch.rollouts, verdicts, config)
    if config.combine == "sum":
        advantages = _from_rewards(verdicts.rewards, config)
    else:
        advantages = _from_parts(reward, verdicts, config)
    device = policy.device  # verdicts are on the CPU, the loss is not
    moved = dataclasses.replace(
        advantages, values=advantages.values.to(device), valid=advantages.valid.to(device),
        zero_variance=advantages.zero_variance.to(device), dropped=advantages.dropped.to(device),
    )  # fmt: skip
    return dataclasses.replace(batch, verdicts=verdicts, advantages=moved)


def finish_credit(policy: Policy, batch: Batch, config: GrpoConfig, world: World) -> Batch:
    """Do what needs all groups of the phase: normalise over processes, weigh tokens, leave rows out."""
    assert batch.advantages is not None
    if config.advantage in OVER_THE_BATCH or config.combine == "gdpo":
        moments = BatchMoments(**world.add(dataclasses.asdict(batch_moments(batch.advantages))))
        batch = dataclasses.replace(batch, advantages=batch_normalized(batch.advantages, moments.stats()))
    if config.token_weights and len(batch):
        weights = token_credit(config.token_weights, policy, batch.to(policy.device), config.micro_rows)
        batch = dataclasses.replace(batch, token_weights=weights)
    return batch if config.keep_extremes is None else extremes(batch, config.keep_extremes)


def extremes(batch: Batch, keep: int) -> Batch:
    """Learn from the `keep` best and `keep` worst rollouts of each group only, by their advantages, which stay as they are.

    Not by their rewards: the sum of several parts can rank a group in another order than what is learned from.
    """
    advantages = batch.advantages
    assert advantages is not None
    judged = advantages.valid.reshape(-1, batch.group_size)
    values = advantages.values.reshape(-1, batch.group_size).masked_fill(~judged, -math.inf)
    # The argsort of an argsort is the place of each rollout in its group's order, here from the worst to the best.
    place = values.argsort(dim=1, stable=True).argsort(1)
    num_verdicts = judged.sum(1, keepdim=True)
    rank = place - (batch.group_size - num_verdicts)  # rows without a verdict come first, with a negative rank
    kept = (rank < keep) | (rank >= num_verdicts - keep)
    valid = advantages.valid & kept.reshape(-1)
    return dataclasses.replace(batch, advantages=dataclasses.replace(advantages, valid=valid))


def summed_log_ratio(policy: Policy, rollouts: Rollouts, micro_rows: int) -> Tensor:
    """Sum log_probs − the reference's over each row's trained tokens: (B,), k1, an unbiased estimate of its KL, nats."""
    parts = [torch.zeros(0)]
    for rows in parts_of(torch.arange(len(rollouts)), micro_rows):
        micro = rollouts.select(rows)
        with torch.no_grad(), policy.reference():
            reference = policy.log_probs(micro).log_probs
        log_ratio = kl_k1(micro.log_probs.to(reference.device), reference)
        parts.append(log_ratio.masked_fill(~micro.mask.to(log_ratio.device), 0.0).sum(1).cpu())
    return torch.cat(parts)


def _with_kl_penalty(policy: Policy, rollouts: Rollouts, verdicts: Verdicts, config: GrpoConfig) -> Verdicts:
    """Take beta times each row's KL to the reference off its reward; the KL is logged as a part of the reward."""
    kl = summed_log_ratio(policy, rollouts, config.micro_rows)
    return dataclasses.replace(
        verdicts, rewards=verdicts.rewards - config.beta * kl, parts={**verdicts.parts, "kl": kl}
    )


def _from_rewards(rewards: Tensor, config: GrpoConfig) -> Advantages:
    """Advantages of whole groups from one reward per rollout."""
    name = config.advantage or ("dr_grpo" if config.variant == "dr_grpo" else "group")
    batch_stats = {"batch_stats": NOT_YET_NORMALISED} if name in OVER_THE_BATCH else {}
    return ADVANTAGES[name](rewards, config.group_size, **batch_stats)


def _from_parts(reward: Reward, verdicts: Verdicts, config: GrpoConfig) -> Advantages:
    """Advantages from a reward of several parts. Raises UserError for one that does not say how its parts are weighed."""
    weights = reward.weights
    if weights is None or config.combine == "sum":  # never "sum" here, which the type checker cannot know
        raise UserError(
            f"combine={config.combine} needs a reward of several parts, and {reward.name} is one. Set "
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
