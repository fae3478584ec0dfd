"""A phase of GRPO before the learning: prompts in order, groups of rollouts, rewards, advantages and statistics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from thinkdraw.data.rewrites import rewrites
from thinkdraw.errors import UserError
from thinkdraw.objectives import ADVANTAGES, Advantages, BatchMoments, batch_moments, batch_normalized, combine, kl_k1
from thinkdraw.policies.janus import JanusPolicy
from thinkdraw.policies.noise import derive_seeds
from thinkdraw.recipes.overlap import Judged, draw_and_judge
from thinkdraw.recipes.prompt_order import PromptOrder
from thinkdraw.recipes.token_credit import TokenCredit, token_credit
from thinkdraw.recipes.training import Team
from thinkdraw.types import Prompt, Reward, Rollouts

if TYPE_CHECKING:
    from thinkdraw.recipes.grpo import GrpoConfig


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
        credit = None if self.credit is None else self.credit.rows(rows, rollouts.tokens.shape[1])
        rewards, applies = self.rewards[rows], self.applies[rows]
        return Part(rollouts, rewards, applies, components, advantages, self.groups[rows], old, credit)


@dataclass
class Phase:
    """What a process has of a phase.

    num_sampled: pictures, over all processes. rewards, applies: of every rollout of this process, those of replaced
    groups too.
    spent: what the ledger is told besides: tokens, reference forwards, and this process's seconds.
    """

    parts: list[Part]
    rewards: Tensor
    applies: Tensor
    num_sampled: int
    spent: dict[str, float]


def draw_seeds(seed: int, phase: int, first: int, num_prompts: int, group_size: int) -> Tensor:
    """(num_prompts · group_size,) seeds of the phase's prompts `first`, `first` + 1, …, whoever draws them."""
    base = int(np.random.SeedSequence([seed, phase]).generate_state(1)[0])
    return derive_seeds(base, first + num_prompts, group_size)[first * group_size :]


def sample_phase(
    policy: JanusPolicy, reward: Reward, order: PromptOrder, config: GrpoConfig, phase: int, team: Team
) -> Phase:
    """This process's groups of the phase, judged; what the rewards say of their prompts is remembered in `order`.

    Groups without spread are replaced, `refill_rounds` times, by groups of the prompts that come next.
    """
    parts: list[Part] = []
    judged: list[tuple[Tensor, Tensor]] = []
    seconds = {"seconds_sampling": 0.0, "seconds_judging": 0.0}
    tokens = 0
    prompts = order.take(config.prompts_per_phase, phase)
    mine = team.share(len(prompts))
    drawn = 0  # prompts of the phase so far, over all processes
    for attempt in range(1 + config.refill_rounds):
        if len(mine):
            chosen = [prompts[i] for i in mine]
            new = _sample(policy, reward, chosen, config, phase, drawn + mine.start, seconds)
            parts += new
            judged.append((torch.cat([part.rewards for part in new]), torch.cat([part.applies for part in new])))
            tokens += sum(int((part.rollouts.segment >= 0).sum()) for part in new)
        if order.history:
            order.remember(prompts, team.add_rows(judged[-1][0] if len(mine) else None, mine, len(prompts)), phase)
        drawn += len(prompts)
        if attempt == config.refill_rounds:
            break
        flat = [part.advantages.zero_variance | part.advantages.dropped for part in parts]
        missing = team.gather(sum(int(f.sum()) for f in flat))
        if sum(missing) == 0:
            break
        parts = [_without_groups(part, f) for part, f in zip(parts, flat) if not bool(f.all())]
        prompts = order.take(sum(missing), phase)
        begin = sum(missing[: team.rank])
        mine = range(begin, begin + missing[team.rank])
    if config.advantage in OVER_THE_BATCH or config.combine == "gdpo":
        parts = normalised(parts, team)
    if config.token_weights:
        parts = [with_credit(policy, part, config) for part in parts]
    if config.keep_extremes is not None:
        parts = [extremes(part, config.keep_extremes) for part in parts]
    sampled = drawn * config.group_size
    spent = team.add({"tokens_sampled": tokens}) | seconds
    spent["reference_forwards"] = sampled if config.beta > 0 and config.kl == "k1" else 0
    rewards, applies = (torch.cat(rows) for rows in zip(*judged, strict=True))
    return Phase(parts, rewards, applies, sampled, spent)


def _sample(
    policy: JanusPolicy, reward: Reward, prompts: Sequence[Prompt], config: GrpoConfig, phase: int, first: int,
    seconds: dict[str, float],
) -> list[Part]:  # fmt: skip
    """A part per chunk; while one chunk is judged the next is drawn."""
    size = -(-len(prompts) // config.judge_chunks)
    begins = range(0, len(prompts), size)
    drawn = (_draw(policy, prompts[b : b + size], config, phase, first + b) for b in begins)
    found = draw_and_judge(drawn, reward)
    seconds["seconds_sampling"] += found.seconds_sample
    seconds["seconds_judging"] += found.seconds_wait
    return [_part(policy, reward, judged, config, first + b) for judged, b in zip(found.chunks, begins, strict=True)]


def _draw(policy: JanusPolicy, prompts: Sequence[Prompt], config: GrpoConfig, phase: int, first: int) -> Rollouts:
    size = config.group_size
    seeds = draw_seeds(config.seed, phase, first, len(prompts), size)
    if config.rewrites == "pool":
        told = retold(prompts, size, phase, config.seed)
        return dataclasses.replace(policy.sample(told, config.sampling, seeds=seeds), group_size=size)
    return policy.sample(prompts, config.sampling, group_size=size, seeds=seeds)


def _part(policy: JanusPolicy, reward: Reward, judged: Judged, config: GrpoConfig, first: int) -> Part:
    rollouts, rewards, components = judged.rollouts, judged.rewards, dict(judged.components)
    if config.beta > 0 and config.kl == "k1":
        components["kl"] = summed_log_ratio(policy, rollouts, config.micro_rows)
        rewards = rewards - config.beta * components["kl"]
    advantages = credit(rewards, config) if config.combine == "sum" else combined(reward, judged, config)
    groups = torch.arange(first, first + len(rollouts) // config.group_size).repeat_interleave(config.group_size)
    moved = {
        name: getattr(advantages, name).to(policy.device) for name in ("values", "valid", "zero_variance", "dropped")
    }
    advantages = dataclasses.replace(advantages, **moved)
    return Part(rollouts, rewards, judged.applies, components, advantages, groups)


def credit(rewards: Tensor, config: GrpoConfig) -> Advantages:
    """Advantages of whole groups; those that are normalised over the batch are still raw, see `normalised`."""
    name = config.advantage or ("dr_grpo" if config.variant == "dr_grpo" else "group")
    raw = {"batch_stats": (0.0, 1.0)} if name in OVER_THE_BATCH else {}
    return ADVANTAGES[name](rewards, config.group_size, **raw)


def combined(reward: Reward, judged: Judged, config: GrpoConfig) -> Advantages:
    """Advantages of a reward of several parts; those of `gdpo` are still raw, see `normalised`.

    Raises UserError for a reward that does not say how its parts are weighed.
    """
    weights: Any = getattr(reward, "weights", None)
    if weights is None or config.combine == "sum":
        raise UserError(
            f"combine={config.combine} needs a reward of several parts, and {reward.name} is one. Set "
            "reward.name=combined with reward.settings.rewards, or combine=sum."
        )
    try:
        return combine(
            {name: judged.components[name] for name in weights}, config.group_size, weights, how=config.combine,
            ranges=config.ranges or None, applies=judged.component_applies or None,
            batch_stats=(0.0, 1.0) if config.combine == "gdpo" else None,
        )  # fmt: skip
    except ValueError as error:
        raise UserError(f"combine={config.combine}: {error}") from error


def with_credit(policy: JanusPolicy, part: Part, config: GrpoConfig) -> Part:
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


def summed_log_ratio(policy: JanusPolicy, rollouts: Rollouts, micro_rows: int) -> Tensor:
    """(B,) sum over the trained tokens of log_probs − the reference's: k1, an unbiased estimate of a row's KL in nats."""
    parts = []
    for rows in torch.arange(len(rollouts)).split(micro_rows):
        micro = rollouts.select(rows)
        with torch.no_grad(), policy.reference():
            reference = policy.log_probs(micro).log_probs
        ratio = kl_k1(micro.log_probs.to(reference.device), reference)
        parts.append(ratio.masked_fill(~micro.mask.to(ratio.device), 0.0).sum(1).cpu())
    return torch.cat(parts)


def retold(prompts: Sequence[Prompt], group_size: int, phase: int, seed: int) -> list[Prompt]:
    """`group_size` of each prompt, prompt-major: its own words first, then rewrites in an order of the phase's own, in turn.

    The group has one baseline for all of them, as PeRL's groups have for permuted pictures (arXiv 2506.14907).
    """
    out: list[Prompt] = []
    for prompt in prompts:
        others = list(rewrites(prompt))
        np.random.default_rng([seed, phase, *prompt.id.encode()]).shuffle(others)
        texts = [prompt.text, *others]
        out += [dataclasses.replace(prompt, text=texts[i % len(texts)]) for i in range(group_size)]
    return out


def extremes(part: Part, keep: int) -> Part:
    """The part with only the `keep` best and `keep` worst rollouts of each group to learn from; the advantages stay."""
    size = part.rollouts.group_size
    ranked = part.rewards.reshape(-1, size).nan_to_num(-math.inf).argsort(dim=1, stable=True).argsort(1)
    verdicts = (~part.rewards.isnan()).reshape(-1, size).sum(1, keepdim=True)
    rank = ranked - (size - verdicts)  # rows without a verdict come first, with a negative rank
    kept = (rank < keep) | (rank >= verdicts - keep)
    valid = part.advantages.valid & kept.reshape(-1).to(part.advantages.valid.device)
    return dataclasses.replace(part, advantages=dataclasses.replace(part.advantages, valid=valid))


def _without_groups(part: Part, flat: Tensor) -> Part:
    keep = (~flat).repeat_interleave(part.rollouts.group_size)
    return part.select(keep.nonzero().flatten().cpu())


def minibatches(parts: list[Part], config: GrpoConfig) -> Iterator[list[Part]]:
    """The groups of each optimiser step: group g is in minibatch g mod `minibatches`, whoever has it."""
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


def phase_stats(phase: Phase, config: GrpoConfig, team: Team) -> dict[str, float | None]:
    """Global means; None where nothing has a verdict.

    reward_mean and no_verdict_frac are of all rollouts, replaced groups too; the rest is of what is trained on.
    """
    names = sorted(phase.parts[0].components)
    sums: dict[str, float] = dict.fromkeys(("rows", "missing", "trained_rows", "groups", "flat", "text", "forced"), 0.0)
    sums |= {
        f"{name}/{what}": 0.0
        for name in ("reward", "trained", "advantage", *(f"component {n}" for n in names))
        for what in ("sum", "squares", "count")
    }

    def add(name: str, values: Tensor) -> None:
        values = values[~values.isnan()].double()
        for what, value in (("sum", values.sum()), ("squares", values.square().sum()), ("count", len(values))):
            sums[f"{name}/{what}"] += float(value)

    add("reward", phase.rewards)
    sums["rows"], sums["missing"] = len(phase.rewards), float((phase.rewards.isnan() & phase.applies).sum())
    for part in phase.parts:
        add("trained", part.rewards)
        add("advantage", part.advantages.values[part.advantages.valid])
        for name in names:
            add(f"component {name}", part.components[name])
        text = ~part.rollouts.is_image & (part.rollouts.segment >= 0)
        forced = (text & ~part.rollouts.mask).any(1)
        if config.sampling.thought == "rewrite":
            forced |= text.sum(1) >= config.sampling.max_thought_tokens
        sums["groups"] += len(part.advantages.zero_variance)
        sums["flat"] += part.advantages.num_zero_variance_groups
        sums["text"] += float(text.sum())
        sums["forced"] += float(forced.sum())
        sums["trained_rows"] += len(text)
    s = team.add(sums)

    def mean_std(name: str) -> tuple[float | None, float | None]:
        count = s[f"{name}/count"]
        if count == 0:
            return None, None
        mean = s[f"{name}/sum"] / count
        return mean, math.sqrt(max(0.0, s[f"{name}/squares"] / count - mean**2))

    row: dict[str, float | None] = dict(zip(("reward_mean", "reward_std"), mean_std("reward")))
    if config.refill_rounds:
        row["reward_mean_trained"] = mean_std("trained")[0]
    row |= {f"reward/{name}": mean_std(f"component {name}")[0] for name in names}
    row |= {"advantage_std": mean_std("advantage")[1], "zero_variance_frac": s["flat"] / s["groups"]}
    row["no_verdict_frac"] = s["missing"] / s["rows"]
    return row | {
        "thought_tokens_mean": s["text"] / s["trained_rows"],
        "thought_forced_frac": s["forced"] / s["trained_rows"],
    }
