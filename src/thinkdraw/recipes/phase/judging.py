"""Sampling and judging at the same time: one chunk of rollouts is judged while the next is sampled, where that helps."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch

from thinkdraw.runtime.device import SideStream
from thinkdraw.types import Reward, Rollouts, Verdicts


@dataclass(frozen=True)
class Judged:
    """Rollouts and what the reward says of them. seconds: that the reward took."""

    rollouts: Rollouts
    verdicts: Verdicts
    seconds: float


@dataclass(frozen=True)
class Overlapped:
    """What `draw_and_judge` gives: chunks in the order in which they were sampled, and where the time went.

    seconds_sample: until the last chunk was sampled. seconds_judge: of the reward alone, at the same time or not.
    seconds_wait: for the reward after the last chunk was sampled: the part of its time that sampling did not hide.
    """

    chunks: list[Judged]
    seconds_sample: float
    seconds_judge: float
    seconds_wait: float


@torch.no_grad()
def judge(reward: Reward, rollouts: Rollouts) -> Judged:
    """Ask the reward, and take the time."""
    began = time.monotonic()
    verdicts = reward(rollouts)
    return Judged(rollouts, verdicts, time.monotonic() - began)


Decode = Callable[[Rollouts], Rollouts]


def unchanged(rollouts: Rollouts) -> Rollouts:
    return rollouts


class Judging:
    """A thread that judges what is submitted, one batch after the other. Left by an error, it drops what is waiting.

    decode: gives rollouts their pictures first. device: that of the rollouts; on a GPU the thread has a stream of its own.
    """

    def __init__(self, reward: Reward, decode: Decode = unchanged, device: torch.device | None = None) -> None:
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


def draw_and_judge(
    chunks: Iterable[Rollouts], reward: Reward, *, beside: bool = True, decode: Decode = unchanged,
    device: torch.device | None = None,
) -> Overlapped:  # fmt: skip
    """Decode and judge each chunk while the next one is sampled.

    chunks: a generator that samples a chunk whenever the next is asked for.
    beside: false judges each before the next is sampled, which is quicker where both would compute on the same cores.
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
                    future.result()  # raises the reward's error now, and not after all chunks are sampled
        drawn = time.monotonic()
        judged = [future.result() for future in futures]
    waited = time.monotonic() - drawn
    return Overlapped(judged, drawn - began, sum(chunk.seconds for chunk in judged), waited)
