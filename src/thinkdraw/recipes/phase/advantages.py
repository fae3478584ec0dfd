"""A part of a phase: whole groups that were sampled and judged together, and what a row is worth to the learning."""

import dataclasses
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.objectives import ADVANTAGES, Advantages, BatchMoments, batch_moments, batch_normalized, combine, kl_k1
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.token_credit import TokenCredit, token_credit
from thinkdraw.training.training import Team
from thinkdraw.types import Policy, Reward, Rollouts, Verdicts

OVER_THE_BATCH = ("reinforce++", "reinforce++_baseline")  # advantages that are normalised over the whole phase


@dataclass
class Part:
    """Whole groups of this process that were sampled together.

    applies: (B,) bool, False where a reward of NaN is no failure: there was nothing to judge.
    groups: (B,) index of each row's group within the phase, over all processes. old_log_probs: (B, T) where recomputed.
    credit: where advantages are spread over tokens.
    """

    rollouts: Rollouts
    rewards: Tensor
    applies: Tensor
    components: dict[str, Tensor]
    advantages: Advantages
    groups: Tensor
    old_log_probs: Tensor | None = field(default=None)
    credit: TokenCredit | None = field(default=None)

    def select(self, rows: Tensor) -> "Part":
        """Some whole groups."""
        a, size = self.advantages, self.rollouts.group_size
        of_group = rows[::size] // size
        advantages = Advantages(
            a.values[rows], a.valid[rows], a.zero_variance[of_group], a.dropped[of_group],
            int(self.rewards[rows].isnan().sum()), int(a.zero_variance[of_group].sum()), int(a.dropped[of_group].sum()),
        )  # fmt: skip
        rollouts = self.rollouts.select(rows, size)
        old = None if self.old_log_probs is None else self.old_log_probs[rows, : rollouts.tokens.shape[1]]
        components = {name: values[rows] for name, values in self.components.items()}
        credit = None if self.credit is None else self.credit.rows(rows, rollouts.tokens.shape[1])
        rewards, applies = self.rewards[rows], self.applies[rows]
        return Part(rollouts, rewards, applies, components, advantages, self.groups[rows], old, credit)


def masked_rows(part: Part) -> Tensor:
    """The mask without rows that have no verdict."""
    return part.rollouts.mask & part.advantages.valid[:, None]


def credit(rewards: Tensor, config: GrpoConfig) -> Advantages:
    """Advantages of whole groups; those that are normalised over the batch are still raw, see `normalised`."""
    name = config.advantage or ("dr_grpo" if config.variant == "dr_grpo" else "group")
    raw = {"batch_stats": (0.0, 1.0)} if name in OVER_THE_BATCH else {}
    return ADVANTAGES[name](rewards, config.group_size, **raw)


def combined(reward: Reward, verdicts: Verdicts, config: GrpoConfig) -> Advantages:
    """Advantages of a reward of several parts; those of `gdpo` are still raw, see `normalised`.

    Raises UserError for a reward that does not say how its parts are weighed.
    """
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


def with_credit(policy: Policy, part: Part, config: GrpoConfig) -> Part:
    """The part with its advantages spread over tokens by `token_weights`."""
    assert config.token_weights is not None
    rollouts = part.rollouts.to(policy.device)
    found = token_credit(
        config.token_weights, policy, rollouts, part.advantages.values, masked_rows(part), config.micro_rows
    )
    return dataclasses.replace(part, credit=found)


def normalised(parts: list[Part], team: Team) -> list[Part]:
    """The parts with advantages normalised over the phase of all processes."""
    mine = sum((batch_moments(part.advantages) for part in parts), BatchMoments(0.0, 0.0, 0.0))
    stats = BatchMoments(**team.add(dataclasses.asdict(mine))).stats()
    return [dataclasses.replace(part, advantages=batch_normalized(part.advantages, stats)) for part in parts]


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


def extremes(part: Part, keep: int) -> Part:
    """The part with only the `keep` best and `keep` worst rollouts of each group to learn from; the advantages stay."""
    size = part.rollouts.group_size
    ranked = part.rewards.reshape(-1, size).nan_to_num(-math.inf).argsort(dim=1, stable=True).argsort(1)
    verdicts = (~part.rewards.isnan()).reshape(-1, size).sum(1, keepdim=True)
    rank = ranked - (size - verdicts)  # rows without a verdict come first, with a negative rank
    kept = (rank < keep) | (rank >= verdicts - keep)
    valid = part.advantages.valid & kept.reshape(-1).to(part.advantages.valid.device)
    return dataclasses.replace(part, advantages=dataclasses.replace(part.advantages, valid=valid))
