"""A phase of GRPO before the learning: prompts in order, groups of rollouts, rewards, advantages, and what is logged of them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from thinkdraw.objectives import Advantages, group_normalized
from thinkdraw.policies.janus import JanusPolicy
from thinkdraw.policies.noise import derive_seeds
from thinkdraw.recipes.inputs import shuffled
from thinkdraw.recipes.training import Team
from thinkdraw.types import Prompt, Reward, Rollouts

if TYPE_CHECKING:
    from thinkdraw.recipes.grpo import GrpoConfig


@dataclass
class Part:
    """Whole groups of this process that were sampled together.

    groups: (B,) index of each row's group within the phase, over all processes. old_log_probs: (B, T) where recomputed.
    """

    rollouts: Rollouts
    rewards: Tensor
    components: dict[str, Tensor]
    advantages: Advantages
    groups: Tensor
    old_log_probs: Tensor | None = field(default=None)

    def select(self, rows: Tensor) -> Part:
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
        return Part(rollouts, self.rewards[rows], components, advantages, self.groups[rows], old)


def draw_seeds(seed: int, phase: int, first: int, num_prompts: int, group_size: int) -> Tensor:
    """(num_prompts · group_size,) seeds of the phase's prompts `first`, `first` + 1, …: the same whichever process draws them."""
    base = int(np.random.SeedSequence([seed, phase]).generate_state(1)[0])
    return derive_seeds(base, first + num_prompts, group_size)[first * group_size :]


def sample_phase(
    policy: JanusPolicy, reward: Reward, prompts: Sequence[Prompt], config: GrpoConfig, phase: int, cursor: int, team: Team
) -> tuple[list[Part], int, int, dict[str, float]]:
    """This process's groups of the phase, the new cursor in the prompt order, pictures sampled by all, and seconds.

    Groups without spread are replaced, `refill_rounds` times, by groups of the prompts that come next.
    """
    parts: list[Part] = []
    seconds = {"seconds_sample": 0.0, "seconds_judge": 0.0}
    mine, total = team.share(config.prompts_per_phase), config.prompts_per_phase
    drawn = 0  # prompts of the phase so far, over all processes
    for attempt in range(1 + config.refill_rounds):
        first = drawn + mine.start
        if len(mine):
            parts.append(_sample(policy, reward, prompts, config, phase, cursor + first, first, len(mine), seconds))
        drawn += total
        if attempt == config.refill_rounds:
            break
        flat = [part.advantages.zero_variance | part.advantages.dropped for part in parts]
        missing = team.gather(sum(int(f.sum()) for f in flat))
        total = sum(missing)
        if total == 0:
            break
        parts = [_without_groups(part, f) for part, f in zip(parts, flat) if not bool(f.all())]
        begin = sum(missing[: team.rank])
        mine = range(begin, begin + missing[team.rank])
    return parts, cursor + drawn, drawn * config.group_size, seconds


def _sample(
    policy: JanusPolicy, reward: Reward, prompts: Sequence[Prompt], config: GrpoConfig, phase: int, place: int, first: int,
    count: int, seconds: dict[str, float],
) -> Part:  # fmt: skip
    chosen = [prompts[shuffled(place + i, len(prompts), config.seed)] for i in range(count)]
    began = time.monotonic()
    seeds = draw_seeds(config.seed, phase, first, count, config.group_size)
    rollouts = policy.sample(chosen, config.sampling, group_size=config.group_size, seeds=seeds)
    sampled = time.monotonic()
    rewards = reward(rollouts).float().cpu()
    components = getattr(reward, "components", None)
    found = {n: v.float().cpu() for n, v in components(rollouts).items()} if callable(components) else {}
    seconds["seconds_sample"] += sampled - began
    seconds["seconds_judge"] += time.monotonic() - sampled
    advantages = group_normalized(rewards, config.group_size, scale_by_std=config.variant != "dr_grpo")
    groups = torch.arange(first, first + count).repeat_interleave(config.group_size)
    advantages = Advantages(**{n: v.to(policy.device) if isinstance(v, Tensor) else v for n, v in vars(advantages).items()})
    return Part(rollouts, rewards, found, advantages, groups)


def _without_groups(part: Part, flat: Tensor) -> Part:
    keep = (~flat).repeat_interleave(part.rollouts.group_size)
    return part.select(keep.nonzero().flatten().cpu())


def minibatches(parts: list[Part], config: GrpoConfig) -> Iterator[list[Part]]:
    """The groups of each optimiser step: group g belongs to minibatch g mod `minibatches`, whatever the number of processes."""
    for _ in range(config.passes):
        for number in range(config.minibatches):
            if config.minibatches == 1:
                yield parts
            else:
                rows = [(part, (part.groups % config.minibatches == number).nonzero().flatten()) for part in parts]
                yield [part.select(r) for part, r in rows if len(r)]


def masked_rows(part: Part) -> Tensor:
    """The mask without rows that have no verdict."""
    return part.rollouts.mask & part.advantages.valid[:, None]


def phase_stats(parts: list[Part], config: GrpoConfig, team: Team) -> dict[str, float | None]:
    """Global means over the phase's rollouts; None where nothing has a verdict."""
    sums: dict[str, float] = {"rows": 0, "verdicts": 0, "reward": 0, "reward2": 0, "adv": 0, "adv2": 0, "valid": 0}
    sums |= {"groups": 0, "flat": 0, "text": 0, "forced": 0}
    names = sorted({name for part in parts for name in part.components})
    sums |= {f"{name}{what}": 0.0 for name in names for what in ("/sum", "/count")}

    def add(name: str, value: Tensor | float) -> None:
        sums[name] += float(value)

    for part in parts:
        r, a, rewards = part.rollouts, part.advantages, part.rewards.double()
        values = a.values[a.valid].double()
        text = ~r.is_image & (r.segment >= 0)
        forced = (text & ~r.mask).any(1)
        if config.sampling.thought == "rewrite":
            forced |= text.sum(1) >= config.sampling.max_thought_tokens
        add("rows", len(r))
        add("verdicts", (~rewards.isnan()).sum())
        add("reward", rewards.nansum())
        add("reward2", rewards.square().nansum())
        add("valid", len(values))
        add("adv", values.sum())
        add("adv2", values.square().sum())
        add("groups", len(a.zero_variance))
        add("flat", a.num_zero_variance_groups)
        add("text", text.sum())
        add("forced", forced.sum())
        for name, component in part.components.items():
            add(f"{name}/sum", component.nansum())
            add(f"{name}/count", (~component.isnan()).sum())
    s = team.add(sums)
    mean, std = _mean_std(s["reward"], s["reward2"], s["verdicts"])
    row: dict[str, float | None] = {"reward_mean": mean, "reward_std": std}
    row |= {f"reward/{n}": s[f"{n}/sum"] / s[f"{n}/count"] if s[f"{n}/count"] else None for n in names}
    row |= {"advantage_std": _mean_std(s["adv"], s["adv2"], s["valid"])[1], "zero_variance_frac": s["flat"] / s["groups"]}
    row |= {"no_verdict_frac": 1 - s["verdicts"] / s["rows"]}
    return row | {"thought_tokens_mean": s["text"] / s["rows"], "thought_forced_frac": s["forced"] / s["rows"]}


def _mean_std(total: float, squares: float, count: float) -> tuple[float | None, float | None]:
    if count == 0:
        return None, None
    mean = total / count
    return mean, math.sqrt(max(0.0, squares / count - mean**2))


def validate(policy: JanusPolicy, reward: Reward, prompts: Sequence[Prompt], config: GrpoConfig, team: Team) -> float | None:
    """Mean reward of one rollout per validation prompt, always with the same seeds; None without any verdict."""
    mine = team.share(len(prompts))
    total, count = 0.0, 0
    if len(mine):
        base = np.random.SeedSequence([config.seed, 0, 1]).generate_state(1)[0]
        seeds = derive_seeds(int(base), len(prompts), 1)[mine.start : mine.stop]
        rewards = reward(policy.sample([prompts[i] for i in mine], config.sampling, seeds=seeds)).double()
        total, count = float(rewards.nansum()), int((~rewards.isnan()).sum())
    sums = team.add({"total": total, "count": count})
    return sums["total"] / sums["count"] if sums["count"] else None
