"""Judging beside drawing: while the pictures of one chunk are decoded and judged, the next chunk is drawn, where that saves time."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from thinkdraw.recipes.judge_parts import parts_of
from thinkdraw.rewards.judging import applies_to
from thinkdraw.runtime.device import SideStream
from thinkdraw.types import Reward, Rollouts


@dataclass(frozen=True)
class Judged:
    """Rollouts with their rewards and components, (B,) float32 on the CPU each. seconds: that the judge took.

    applies, component_applies: (B,) bool, False where a NaN is no missing verdict: there was nothing to judge.
    """

    rollouts: Rollouts
    rewards: Tensor
    components: dict[str, Tensor]
    applies: Tensor
    component_applies: dict[str, Tensor]
    seconds: float


@dataclass(frozen=True)
class Overlapped:
    """Chunks in the order in which they were drawn.

    seconds_sample: spent drawing. seconds_judge: of the judge, hidden or not. seconds_wait: for the judge, after the
    last chunk was drawn; what of the judge's time was not hidden.
    """

    chunks: list[Judged]
    seconds_sample: float
    seconds_judge: float
    seconds_wait: float


@torch.no_grad()
def judge(reward: Reward, rollouts: Rollouts) -> Judged:
    """Ask the reward, then for what it says of its answers, where it says more."""
    began = time.monotonic()
    rewards = reward(rollouts).float().cpu()
    components = {name: values.float().cpu() for name, values in _asked(reward, "components", rollouts).items()}
    component_applies = {name: there.cpu() for name, there in _asked(reward, "component_applies", rollouts).items()}
    applies = applies_to(reward, rollouts).cpu()
    return Judged(rollouts, rewards, components, applies, component_applies, time.monotonic() - began)


def _asked(reward: Reward, method: str, rollouts: Rollouts) -> dict[str, Tensor]:
    """What the reward's method of that name says, or nothing where it has none."""
    ask: Callable[[Rollouts], dict[str, Tensor]] | None = getattr(reward, method, None)
    return ask(rollouts) if ask else {}


Decode = Callable[[Rollouts], Rollouts]


def as_it_is(rollouts: Rollouts) -> Rollouts:
    return rollouts


class Judging:
    """A thread that judges what is submitted, one batch after the other. Left by an error, it drops what is waiting.

    decode: gives rollouts their pictures first. device: that of the rollouts; on a GPU the thread has a stream of its own.
    """

    def __init__(self, reward: Reward, decode: Decode = as_it_is, device: torch.device | None = None) -> None:
        self._reward, self._decode = reward, decode
        self._stream = SideStream(device or torch.device("cpu"))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judging")

    def submit(self, rollouts: Rollouts) -> Future[Judged]:
        """The answer to come; its `result()` raises what the reward raised."""
        return self._thread.submit(self._judge, rollouts, self._stream.queued())

    def _judge(self, rollouts: Rollouts, queued: Any) -> Judged:
        with self._stream.after(queued):
            return judge(self._reward, self._decode(rollouts))

    def __enter__(self) -> "Judging":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=kind is not None)


def is_elsewhere(reward: Reward) -> bool:
    """Whether judging is waiting for another process, as the reward or something that stands behind it says by `elsewhere`."""
    return any(getattr(part, "elsewhere", False) is True for _, part in parts_of(reward))


def draw_and_judge(
    chunks: Iterable[Rollouts], reward: Reward, *, beside: bool = True, decode: Decode = as_it_is,
    device: torch.device | None = None,
) -> Overlapped:  # fmt: skip
    """Decode and judge each chunk while the next one is drawn. chunks: drawn as they are asked for, by a generator that
    samples.

    beside: false judges each before the next is drawn, which is quicker where both would compute on the same cores.
    decode, device: see `Judging`.
    Raises what drawing or the reward raises; after a reward's error no further chunk is drawn.
    """
    began = time.monotonic()
    if not beside:
        judged = [judge(reward, decode(rollouts)) for rollouts in chunks]
        seconds = sum(chunk.seconds for chunk in judged)
        return Overlapped(judged, time.monotonic() - began - seconds, seconds, seconds)
    futures: list[Future[Judged]] = []
    with Judging(reward, decode, device) as judging:
        for rollouts in chunks:
            futures.append(judging.submit(rollouts))
            for future in futures:
                if future.done():
                    future.result()
        drawn = time.monotonic()
        judged = [future.result() for future in futures]
    waited = time.monotonic() - drawn
    return Overlapped(judged, drawn - began, sum(chunk.seconds for chunk in judged), waited)
