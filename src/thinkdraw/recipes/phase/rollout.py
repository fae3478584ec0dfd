"""A phase of GRPO before the learning: prompts in order, groups of rollouts, and what they are worth."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from thinkdraw.data.rewrites import rewrites
from thinkdraw.policies.sampling.noise import derive_seeds
from thinkdraw.recipes.phase.advantages import (
    OVER_THE_BATCH,
    Part,
    combined,
    credit,
    extremes,
    normalised,
    summed_log_ratio,
    with_credit,
)
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.judging import Judged, draw_and_judge
from thinkdraw.recipes.phase.prompt_order import PromptOrder
from thinkdraw.training.training import Team
from thinkdraw.types import Policy, Prompt, Reward, Rollouts


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
    policy: Policy, reward: Reward, order: PromptOrder, config: GrpoConfig, phase: int, team: Team
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
    policy: Policy, reward: Reward, prompts: Sequence[Prompt], config: GrpoConfig, phase: int, first: int,
    seconds: dict[str, float],
) -> list[Part]:  # fmt: skip
    """A part per chunk; while one chunk is judged the next is drawn, unless both would compute on the same cores.

    On a GPU a chunk's pictures are decoded beside the next one's tokens, too.
    """
    size, on_cpu = -(-len(prompts) // config.judge_chunks), policy.device.type == "cpu"
    begins = range(0, len(prompts), size)
    drawn = (_draw(policy, prompts[b : b + size], config, phase, first + b, decode=on_cpu) for b in begins)
    beside = not on_cpu or reward.elsewhere
    found = draw_and_judge(drawn, reward, beside=beside, decode=partial(_decoded, policy), device=policy.device)
    seconds["seconds_sampling"] += found.seconds_sample
    seconds["seconds_judging"] += found.seconds_wait
    return [_part(policy, reward, judged, config, first + b) for judged, b in zip(found.chunks, begins, strict=True)]


def _draw(
    policy: Policy, prompts: Sequence[Prompt], config: GrpoConfig, phase: int, first: int, *, decode: bool
) -> Rollouts:
    size, settings = config.group_size, config.sampling
    seeds = draw_seeds(config.seed, phase, first, len(prompts), size)
    if config.rewrites == "pool":
        told = retold(prompts, size, phase, config.seed)
        return dataclasses.replace(policy.sample(told, settings, seeds=seeds, decode=decode), group_size=size)
    return policy.sample(prompts, settings, group_size=size, seeds=seeds, decode=decode)


def _decoded(policy: Policy, rollouts: Rollouts) -> Rollouts:
    if rollouts.pictures is not None:
        return rollouts
    return dataclasses.replace(rollouts, pictures=policy.decode_tokens(rollouts.image_tokens()))


def _part(policy: Policy, reward: Reward, judged: Judged, config: GrpoConfig, first: int) -> Part:
    rollouts, verdicts = judged.rollouts, judged.verdicts
    rewards, components = verdicts.rewards, dict(verdicts.parts)
    if config.beta > 0 and config.kl == "k1":
        components["kl"] = summed_log_ratio(policy, rollouts, config.micro_rows)
        rewards = rewards - config.beta * components["kl"]
    advantages = credit(rewards, config) if config.combine == "sum" else combined(reward, verdicts, config)
    groups = torch.arange(first, first + len(rollouts) // config.group_size).repeat_interleave(config.group_size)
    moved = {
        name: getattr(advantages, name).to(policy.device) for name in ("values", "valid", "zero_variance", "dropped")
    }
    advantages = dataclasses.replace(advantages, **moved)
    return Part(rollouts, rewards, verdicts.applies, components, advantages, groups)


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
