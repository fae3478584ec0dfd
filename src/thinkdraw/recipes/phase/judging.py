"""Sampling and judging in parallel: one chunk is judged while the next is sampled."""

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
class JudgedChunk:
    """Rollouts with the reward's verdicts. seconds: how long the reward took."""

    rollouts: Rollouts
    verdicts: Verdicts
    seconds: float


@dataclass(frozen=True)
class JudgedChunks:
    """Judged chunks in the order in which they were sampled, and where the time went.

    seconds_sample: until the last chunk was sampled. seconds_judge: all that the reward took, in parallel or not.
    seconds_wait: waiting for the reward after the last chunk was sampled, the part that sampling did not hide.
    """

    chunks: list[JudgedChunk]
    seconds_sample: float
    seconds_judge: float
    seconds_wait: float


@torch.no_grad()
def judge(reward: Reward, rollouts: Rollouts) -> JudgedChunk:
    """Ask the reward for verdicts, and time it."""
    began = time.monotonic()
    verdicts = reward(rollouts)
    return JudgedChunk(rollouts, verdicts, time.monotonic() - began)


Decode = Callable[[Rollouts], Rollouts]


def unchanged(rollouts: Rollouts) -> Rollouts:
    """Return the rollouts: the `Decode` of rollouts that have their pictures."""
    return rollouts


class JudgingThread:
    """A thread that judges submitted batches in order.

    An error inside its `with` block drops the batches that are still waiting.
    decode: adds pictures to rollouts before they are judged. device: of the rollouts. On a GPU the thread has a CUDA
    stream of its own: on the default stream its kernels would queue behind those of sampling.
    """

    def __init__(self, reward: Reward, decode: Decode = unchanged, device: torch.device | None = None) -> None:
        self._reward, self._decode = reward, decode
        self._stream = SideStream(device or torch.device("cpu"))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="judging")

    def submit(self, rollouts: Rollouts) -> Future[JudgedChunk]:
        """Queue rollouts for judging; the future raises what the reward raised."""
        return self._thread.submit(self._judge, rollouts, self._stream.record_event())

    def _judge(self, rollouts: Rollouts, queued: Any) -> JudgedChunk:
        with self._stream.after(queued):
            return judge(self._reward, self._decode(rollouts))

    def __enter__(self) -> "JudgingThread":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=kind is not None)


def draw_and_judge(
    chunks: Iterable[Rollouts], reward: Reward, *, in_parallel: bool = True, decode: Decode = unchanged,
    device: torch.device | None = None,
) -> JudgedChunks:  # fmt: skip
    """Decode and judge each chunk while the next one is sampled.

    chunks: a generator that samples each chunk when it is asked for.
    in_parallel: False judges each chunk before the next is sampled: faster where both would share the same CPU cores.
    decode, device: see `JudgingThread`.
    Raises what sampling or the reward raises; after an error of the reward no further chunk is sampled.
    """
    began = time.monotonic()
    if not in_parallel:
        judged = [judge(reward, decode(rollouts)) for rollouts in chunks]
        seconds = sum(chunk.seconds for chunk in judged)
        return JudgedChunks(judged, time.monotonic() - began - seconds, seconds, seconds)
    futures: list[Future[JudgedChunk]] = []
    with JudgingThread(reward, decode, device) as judging:
        for rollouts in chunks:
            futures.append(judging.submit(rollouts))
            for future in futures:
                if future.done():
                    future.result()  # raises the reward's error now rather than after all chunks are sampled
        drawn = time.monotonic()
        judged = [future.result() for future in futures]
    waited = time.monotonic() - drawn
    return JudgedChunks(judged, drawn - began, sum(chunk.seconds for chunk in judged), waited)
