"""From verdicts to what a row, and a token of it, is worth to the learning."""

import dataclasses
import math

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.objectives import ADVANTAGES, Advantages, BatchMoments, batch_moments, batch_normalized, combine, kl_k1
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.token_credit import token_credit
from thinkdraw.training.batch import Batch
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Reward, Rollouts, Verdicts

OVER_THE_BATCH = ("reinforce++", "reinforce++_baseline")  # advantages that are normalised over the whole phase


def with_advantages(policy: Policy, reward: Reward, batch: Batch, config: GrpoConfig) -> Batch:
    """The batch of whole groups with advantages; those that are normalised over the phase are still raw."""
    verdicts = batch.verdicts
    assert verdicts is not None
    if config.beta > 0 and config.kl == "k1":
        verdicts = _with_kl_penalty(policy, batch.rollouts, verdicts, config)
    advantages = _credit(verdicts.rewards, config) if config.combine == "sum" else _combined(reward, verdicts, config)
    device = policy.device
    moved = dataclasses.replace(
        advantages, values=advantages.values.to(device), valid=advantages.valid.to(device),
        zero_variance=advantages.zero_variance.to(device), dropped=advantages.dropped.to(device),
    )  # fmt: skip
    return dataclasses.replace(batch, verdicts=verdicts, advantages=moved)


def finish_credit(policy: Policy, batch: Batch, config: GrpoConfig, world: World) -> Batch:
    """What needs all groups of the phase: normalising over processes, weights of tokens, leaving rows out."""
    assert batch.advantages is not None
    if config.advantage in OVER_THE_BATCH or config.combine == "gdpo":
        moments = BatchMoments(**world.add(dataclasses.asdict(batch_moments(batch.advantages))))
        batch = dataclasses.replace(batch, advantages=batch_normalized(batch.advantages, moments.stats()))
    if config.token_weights:
        weights = token_credit(config.token_weights, policy, batch.to(policy.device), config.micro_rows)
        batch = dataclasses.replace(batch, token_weights=weights)
    return batch if config.keep_extremes is None else extremes(batch, config.keep_extremes)


def extremes(batch: Batch, keep: int) -> Batch:
    """The batch with only the `keep` best and `keep` worst rollouts of each group to learn from; the advantages stay."""
    advantages, rewards = batch.advantages, batch.rewards.reshape(-1, batch.group_size)
    assert advantages is not None
    ranked = rewards.nan_to_num(-math.inf).argsort(dim=1, stable=True).argsort(1)
    verdicts = (~rewards.isnan()).sum(1, keepdim=True)
    rank = ranked - (batch.group_size - verdicts)  # rows without a verdict come first, with a negative rank
    kept = (rank < keep) | (rank >= verdicts - keep)
    valid = advantages.valid & kept.reshape(-1).to(advantages.valid.device)
    return dataclasses.replace(batch, advantages=dataclasses.replace(advantages, valid=valid))


def summed_log_ratio(policy: Policy, rollouts: Rollouts, micro_rows: int) -> Tensor:
    """(B,) sum over the trained tokens of log_probs − the reference's: k1, an unbiased estimate of a row's KL in nats."""
    parts = []
    for rows in torch.arange(len(rollouts)).split(micro_rows):
        micro = rollouts.select(rows)
        with torch.no_grad(), policy.reference():
            reference = policy.log_probs(micro).log_probs
        ratio = kl_k1(micro.log_probs.to(reference.device), reference)
        parts.append(ratio.masked_fill(~micro.mask.to(ratio.device), 0.0).sum(1).cpu())
    return torch.cat(parts)


def _with_kl_penalty(policy: Policy, rollouts: Rollouts, verdicts: Verdicts, config: GrpoConfig) -> Verdicts:
    """The verdicts less beta times each row's distance to the reference, which becomes a part of its own."""
    kl = summed_log_ratio(policy, rollouts, config.micro_rows)
    return dataclasses.replace(
        verdicts, rewards=verdicts.rewards - config.beta * kl, parts={**verdicts.parts, "kl": kl}
    )


def _credit(rewards: Tensor, config: GrpoConfig) -> Advantages:
    """Advantages of whole groups from one reward."""
    name = config.advantage or ("dr_grpo" if config.variant == "dr_grpo" else "group")
    raw = {"batch_stats": (0.0, 1.0)} if name in OVER_THE_BATCH else {}
    return ADVANTAGES[name](rewards, config.group_size, **raw)


def _combined(reward: Reward, verdicts: Verdicts, config: GrpoConfig) -> Advantages:
    """Advantages from a reward of several parts. Raises UserError for one that does not say how its parts are weighed."""
    weights = reward.weights
    if weights is None or config.combine == "sum":
        raise UserError(
            f"combine={config.combine} needs a reward of several parts, and {reward.name} is one. Set "
            "reward.name=combined with reward.settings.rewards, or combine=sum."
        )
    try:
        return combine(
            {name: verdicts.parts[name] for name in weights}, config.group_size, weights, how=config.combine,
            ranges=config.ranges or None, applies=verdicts.part_applies or None,
            batch_stats=(0.0, 1.0) if config.combine == "gdpo" else None,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"combine={config.combine}: {error}") from error
