"""Sampling and judging a phase of GRPO; groups without spread are replaced."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from thinkdraw.data.rewrites import rewrites
from thinkdraw.policies.sampling.noise import derive_seeds
from thinkdraw.recipes.phase.advantages import add_group_advantages
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.judging import draw_and_judge
from thinkdraw.recipes.phase.prompt_order import PromptOrder
from thinkdraw.training.batch import Batch
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Prompt, Reward, Rollouts, Verdicts


@dataclass(frozen=True)
class SampledPhase:
    """This process's rollouts of a phase, judged, and what the phase cost.

    batch: what is learned from, with the advantages within groups.
    verdicts: of every rollout sampled by this process, replaced groups included.
    num_sampled: rollouts over all processes.
    spent: column of the ledger → amount; tokens and reference forwards over all processes, seconds of this one.
    """

    batch: Batch
    verdicts: Verdicts
    num_sampled: int
    spent: dict[str, float]


def sample_phase(
    policy: Policy, reward: Reward, order: PromptOrder, config: GrpoConfig, phase: int, world: World
) -> SampledPhase:
    """Sample and judge this process's groups of a phase, and add their advantages.

    Groups without spread are replaced up to `refill_rounds` times by groups of the next prompts. `order` remembers which
    prompts were solved. phase: its number. All processes call this together: they share out prompts and add up sums.
    """
    batches: list[Batch] = []  # one per round, to learn from
    verdicts: list[Verdicts] = []  # one per round, of all that was sampled
    seconds = {"seconds_sampling": 0.0, "seconds_judging": 0.0}
    num_tokens = 0
    prompts = order.take(config.prompts_per_phase, phase)
    mine = world.share(len(prompts))  # indices in `prompts` of this process's
    # Prompts of earlier rounds, over all processes. A prompt's number in the phase decides the seeds of its rollouts.
    num_prompts = 0
    for attempt in range(1 + config.refill_rounds):
        if len(mine):
            first = num_prompts + mine.start
            batches.append(sample_groups(policy, reward, [prompts[i] for i in mine], config, phase, first, seconds))
            verdicts.append(_verdicts(batches[-1]))
            num_tokens += int(batches[-1].rollouts.is_sampled().sum())
        if order.history:
            rewards = verdicts[-1].rewards if len(mine) else None
            order.record(prompts, world.gather_rows(rewards, mine, len(prompts)), phase)
        num_prompts += len(prompts)
        if attempt == config.refill_rounds:
            break  # groups without spread of the last round stay: the number of rounds is bounded
        num_flat = world.gather(sum(int(flat_groups(batch).sum()) for batch in batches))  # by process
        if sum(num_flat) == 0:
            break
        batches = [batch.select_groups(~flat_groups(batch)) for batch in batches]
        # Each process refills as many groups as it lost, so that none becomes slower than the others.
        prompts = order.take(sum(num_flat), phase)
        begin = sum(num_flat[: world.rank])
        mine = range(begin, begin + num_flat[world.rank])
    num_sampled = num_prompts * config.group_size
    spent = world.sum({"tokens_sampled": num_tokens}) | seconds
    spent["reference_forwards"] = num_sampled if config.beta > 0 and config.kl == "k1" else 0
    return SampledPhase(Batch.join(batches), Verdicts.join(verdicts), num_sampled, spent)


def flat_groups(batch: Batch) -> Tensor:
    """Find groups that teach nothing, (P,) bool.

    True where all rewards are equal, or fewer than two are known.
    """
    assert batch.advantages is not None
    return batch.advantages.zero_variance | batch.advantages.dropped


def _verdicts(batch: Batch) -> Verdicts:
    assert batch.verdicts is not None
    return batch.verdicts


def sample_groups(
    policy: Policy, reward: Reward, prompts: Sequence[Prompt], config: GrpoConfig, phase: int, first: int,
    seconds: dict[str, float],
) -> Batch:  # fmt: skip
    """Sample a group of rollouts per prompt, judge them, and add their advantages.

    Sampling comes in `judge_chunks` chunks: each is judged while the next is sampled, unless both would compute on the
    same CPU cores. On a GPU a chunk's pictures are also decoded while the next one's tokens are sampled.
    first: number of the first prompt in the phase. seconds: sampling and judging times are added to it.
    """
    size, on_cpu = -(-len(prompts) // config.judge_chunks), policy.device.type == "cpu"  # size: prompts per chunk
    begins = range(0, len(prompts), size)
    chunks = (_sample_chunk(policy, prompts[b : b + size], config, phase, first + b, decode=on_cpu) for b in begins)
    judged = draw_and_judge(
        chunks, reward, in_parallel=not on_cpu or reward.elsewhere, decode=partial(with_pictures, policy),
        device=policy.device,
    )  # fmt: skip
    seconds["seconds_sampling"] += judged.seconds_sample
    seconds["seconds_judging"] += judged.seconds_wait  # only what sampling did not hide
    groups = torch.arange(first, first + len(prompts)).repeat_interleave(config.group_size)
    batch = Batch.join([Batch(chunk.rollouts, chunk.verdicts) for chunk in judged.chunks])
    return add_group_advantages(policy, reward, dataclasses.replace(batch, groups=groups), config)


def _sample_chunk(
    policy: Policy, prompts: Sequence[Prompt], config: GrpoConfig, phase: int, first: int, *, decode: bool
) -> Rollouts:
    """Sample a group per prompt.

    first: number of the first prompt in the phase. decode: make pictures too.
    """
    size, settings = config.group_size, config.sampling
    seeds = draw_seeds(config.seed, phase, first, len(prompts), size)
    if config.rewrites == "pool":
        # Each wording is a prompt of its own for the policy, and all wordings of one prompt are a group for the advantage.
        wordings = prompt_wordings(prompts, size, phase, config.seed)
        return dataclasses.replace(policy.sample(wordings, settings, seeds=seeds, decode=decode), group_size=size)
    return policy.sample(prompts, settings, group_size=size, seeds=seeds, decode=decode)


def draw_seeds(seed: int, phase: int, first: int, num_prompts: int, group_size: int) -> Tensor:
    """Derive the seeds of the rollouts of prompts `first`, `first` + 1, … of a phase.

    A rollout's seed follows from the run's seed, the phase, the prompt's number in it and the rollout's in the group. So
    any number of processes, and a run that goes on after a stop, draw the same rollouts.
    Returns (num_prompts · group_size,).
    """
    base = int(np.random.SeedSequence([seed, phase]).generate_state(1)[0])
    return derive_seeds(base, first + num_prompts, group_size)[first * group_size :]


def prompt_wordings(prompts: Sequence[Prompt], group_size: int, phase: int, seed: int) -> list[Prompt]:
    """Word each prompt in `group_size` ways: its own words, then its rewrites in turn.

    Where there are fewer wordings than rollouts, they repeat. Each phase shuffles the rewrites anew. The group shares one
    baseline, as PeRL's groups do over permuted pictures (arXiv 2506.14907).
    Returns P · group_size prompts, those of one group together.
    """
    wordings: list[Prompt] = []
    for prompt in prompts:
        rewritten = list(rewrites(prompt))
        np.random.default_rng([seed, phase, *prompt.id.encode()]).shuffle(rewritten)
        texts = [prompt.text, *rewritten]
        wordings += [dataclasses.replace(prompt, text=texts[i % len(texts)]) for i in range(group_size)]
    return wordings


def with_pictures(policy: Policy, rollouts: Rollouts) -> Rollouts:
    """Decode the pictures of rollouts that were sampled without them."""
    if rollouts.pictures is not None:
        return rollouts
    return dataclasses.replace(rollouts, pictures=policy.decode_tokens(rollouts.image_tokens()))
