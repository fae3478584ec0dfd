"""What a picture costs, with and without a thought: seconds and tokens."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from thinkdraw.benchmarks.drawing import picture_seed
from thinkdraw.benchmarks.drawn_folder import text_tokens
from thinkdraw.types import Policy, Prompt, Sampling


@dataclass(frozen=True)
class Latency:
    """Mean cost per picture.

    seconds: wall clock of a whole batch divided by its pictures; with a batch of 1, the wait for one picture.
    """

    seconds: float
    text_tokens: float
    image_tokens: float
    pictures: int
    batch: int


def latency(
    policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, *, batch: int = 1, seed: int = 0
) -> dict[str, Latency]:
    """Draw the prompts once with a thought and once without, and measure both.

    The result has the keys "off" and the thought format's name: the sampling's, or inline if that is off.
    batch: pictures drawn at once. The first batch of each kind is drawn twice, first to warm up.
    """
    thinking = sampling if sampling.thought != "off" else sampling.model_copy(update={"thought": "inline"})
    kinds = {thinking.thought: thinking, "off": sampling.model_copy(update={"thought": "off"})}
    return {name: _measure(policy, prompts, kind, batch, seed) for name, kind in kinds.items()}


def _measure(policy: Policy, prompts: Sequence[Prompt], sampling: Sampling, batch: int, seed: int) -> Latency:
    seconds, text, image = 0.0, 0, 0
    for start in range(0, len(prompts), batch):
        chunk = list(prompts[start : start + batch])
        seeds = [picture_seed("latency", prompt, 0, seed) for prompt in chunk]
        if start == 0:
            policy.sample(chunk, sampling, seeds=seeds)
        begin = time.perf_counter()
        rollouts = policy.sample(chunk, sampling, seeds=seeds)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # `sample` may return while the GPU still computes
        seconds += time.perf_counter() - begin
        text += sum(text_tokens(rollouts))
        image += int((rollouts.is_image & rollouts.is_sampled()).sum())
    count = len(prompts)
    return Latency(seconds / count, text / count, image / count, count, min(batch, count))
