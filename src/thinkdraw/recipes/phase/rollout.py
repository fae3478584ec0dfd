"""Sampling a phase of GRPO: prompts in order, groups of rollouts, judged, until enough groups have something to compare."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from thinkdraw.data.rewrites import rewrites
from thinkdraw.policies.sampling.noise import derive_seeds
from thinkdraw.recipes.phase.advantages import finish_credit, with_advantages
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.judging import draw_and_judge
from thinkdraw.recipes.phase.prompt_order import PromptOrder
from thinkdraw.training.batch import Batch
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Prompt, Reward, Rollouts, Verdicts


@dataclass(frozen=True)
class Phase:
    """A phase's rollouts with their verdicts and advantages, as far as they are this process's, and what they cost.

    batch: what is learned from. verdicts: of every rollout sampled here, those of replaced groups too.
    num_sampled: rollouts, over all processes. spent: column of the ledger → amount; tokens and reference forwards of all
    processes, seconds of this one.
    """

    batch: Batch
    verdicts: Verdicts
    num_sampled: int
    spent: dict[str, float]


def sample_phase(
    policy: Policy, reward: Reward, order: PromptOrder, config: GrpoConfig, phase: int, world: World
) -> Phase:
    """Sample and judge this process's groups of the phase, and give each row its advantage.

    Groups without spread are replaced, `refill_rounds` times, by groups of the prompts that come next. `order` remembers
    which prompts were solved. phase: its number. All processes call this together: they share out prompts, and add sums.
    """
    parts: list[Batch] = []  # to learn from
    verdicts: list[Verdicts] = []  # of all that was sampled
    seconds = {"seconds_sampling": 0.0, "seconds_judging": 0.0}
    num_tokens = 0
    prompts = order.take(config.prompts_per_phase, phase)
    mine = world.share(len(prompts))  # this process's places in `prompts`
    drawn = (
        0  # prompts of earlier rounds, over all processes: a prompt's place in the phase decides its rollouts' seeds
    )
    for attempt in range(1 + config.refill_rounds):
        if len(mine):
            new = sample_groups(policy, reward, [prompts[i] for i in mine], config, phase, drawn + mine.start, seconds)
            parts.append(new)
            verdicts.append(_verdicts(new))
            num_tokens += int(new.rollouts.is_sampled().sum())
        if order.history:
            rewards = verdicts[-1].rewards if len(mine) else None
            order.record(prompts, world.add_rows(rewards, mine, len(prompts)), phase)
        drawn += len(prompts)
        if attempt == config.refill_rounds:
            break  # the groups without spread of the last round stay
        missing = world.gather(sum(int(flat_groups(part).sum()) for part in parts))  # groups, of each process
        if sum(missing) == 0:
            break
        parts = [part.select_groups(~flat_groups(part)) for part in parts]
        prompts = order.take(sum(missing), phase)  # each process as many as it lost
        begin = sum(missing[: world.rank])
        mine = range(begin, begin + missing[world.rank])
    batch = finish_credit(policy, Batch.join(parts), config, world)
    num_sampled = drawn * config.group_size
    spent = world.add({"tokens_sampled": num_tokens}) | seconds
    spent["reference_forwards"] = num_sampled if config.beta > 0 and config.kl == "k1" else 0
    return Phase(batch, Verdicts.join(verdicts), num_sampled, spent)


def flat_groups(batch: Batch) -> Tensor:
    """(P,) bool: groups of which nothing can be learned, their rewards all equal or fewer than two."""
    assert batch.advantages is not None
    return batch.advantages.zero_variance | batch.advantages.dropped


def _verdicts(batch: Batch) -> Verdicts:
    assert batch.verdicts is not None
    return batch.verdicts


def sample_groups(
    policy: Policy, reward: Reward, prompts: Sequence[Prompt], config: GrpoConfig, phase: int, first: int,
    seconds: dict[str, float],
) -> Batch:  # fmt: skip
    """Sample a group of rollouts per prompt, judge them, and add advantages.

    Sampled in `judge_chunks` parts: while one is judged the next is sampled, unless both would compute on the same cores.
    On a GPU a part's pictures are decoded while the next one's tokens are sampled, too.
    first: the first prompt's place in the phase. seconds: what this took is added to it.
    """
    size, on_cpu = -(-len(prompts) // config.judge_chunks), policy.device.type == "cpu"  # prompts of a part
    begins = range(0, len(prompts), size)
    chunks = (_draw(policy, prompts[b : b + size], config, phase, first + b, decode=on_cpu) for b in begins)
    beside = not on_cpu or reward.elsewhere
    drawn = draw_and_judge(chunks, reward, beside=beside, decode=partial(with_pictures, policy), device=policy.device)
    seconds["seconds_sampling"] += drawn.seconds_sample
    seconds["seconds_judging"] += drawn.seconds_wait  # what sampling did not hide
    groups = torch.arange(first, first + len(prompts)).repeat_interleave(config.group_size)
    judged = Batch.join([Batch(chunk.rollouts, chunk.verdicts) for chunk in drawn.chunks])
    return with_advantages(policy, reward, dataclasses.replace(judged, groups=groups), config)


def _draw(
    policy: Policy, prompts: Sequence[Prompt], config: GrpoConfig, phase: int, first: int, *, decode: bool
) -> Rollouts:
    """Sample a group per prompt. first: the first prompt's place in the phase. decode: make pictures too."""
    size, settings = config.group_size, config.sampling
    seeds = draw_seeds(config.seed, phase, first, len(prompts), size)
    if config.rewrites == "pool":
        told = prompt_wordings(prompts, size, phase, config.seed)
        return dataclasses.replace(policy.sample(told, settings, seeds=seeds, decode=decode), group_size=size)
    return policy.sample(prompts, settings, group_size=size, seeds=seeds, decode=decode)


def draw_seeds(seed: int, phase: int, first: int, num_prompts: int, group_size: int) -> Tensor:
    """(num_prompts · group_size,) seeds of the phase's prompts `first`, `first` + 1, …

    The same on any number of processes: a rollout's seed follows from the run's seed, the phase and the prompt's place.
    """
    base = int(np.random.SeedSequence([seed, phase]).generate_state(1)[0])
    return derive_seeds(base, first + num_prompts, group_size)[first * group_size :]


def prompt_wordings(prompts: Sequence[Prompt], group_size: int, phase: int, seed: int) -> list[Prompt]:
    """Prompts in several wordings: `group_size` of each, prompt-major, its own words first, then its rewrites in turn.

    The order of the rewrites is another in each phase. The group has one baseline for all of them, as PeRL's groups have
    for permuted pictures (arXiv 2506.14907).
    """
    out: list[Prompt] = []
    for prompt in prompts:
        others = list(rewrites(prompt))
        np.random.default_rng([seed, phase, *prompt.id.encode()]).shuffle(others)
        texts = [prompt.text, *others]
        out += [dataclasses.replace(prompt, text=texts[i % len(texts)]) for i in range(group_size)]
    return out


def with_pictures(policy: Policy, rollouts: Rollouts) -> Rollouts:
    """Decode the pictures of rollouts that were sampled without."""
    if rollouts.pictures is not None:
        return rollouts
    return dataclasses.replace(rollouts, pictures=policy.decode_tokens(rollouts.image_tokens()))
