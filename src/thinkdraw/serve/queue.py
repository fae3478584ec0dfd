"""The queue of one judge: requests of one kind are judged together, by one thread.

No more requests wait than fit.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinkdraw.errors import OwnCodeError, UserError
from thinkdraw.serve.wire import Limits, Verdict
from thinkdraw.types import Reward, Rollouts, Verdicts

log = logging.getLogger("thinkdraw.serve")
_LIMITS = Limits()


class FullError(Exception):
    """The queue has no room, or is closing; ask again later."""


class JudgingError(Exception):
    """A request got no verdicts for a reason outside its rows; another try may help."""


@dataclass(eq=False)
class _Piece:
    """Whole groups of a request. kind: pieces of one kind may form a batch."""

    rollouts: Rollouts
    hashes: Sequence[str]
    future: Future[list[Verdict]] = field(default_factory=Future)

    @property
    def kind(self) -> tuple[object, ...]:
        pictures = self.rollouts.pictures
        assert pictures is not None
        return self.rollouts.group_size, pictures.shape[1:], self.rollouts.sampling

    @property
    def num_bytes(self) -> int:
        """Bytes of its pictures."""
        pictures = self.rollouts.pictures
        return 0 if pictures is None else pictures.numel()


class JudgeQueue:
    """Judges batches of up to `max_batch` rows, collected for at most `max_wait_s`.

    A batch is larger only where a group is. max_rows, max_bytes: rows, and bytes of their pictures, that may wait.
    limits: what a batch holds at most, the same as for a request. hung_s: a batch that takes longer has hung.
    counts: batches, rows, rows without a verdict and failed requests since the start; judge_seconds: seconds of
    judging.
    """

    def __init__(
        self, reward: Reward, max_batch: int, max_wait_s: float, max_rows: int, *, max_bytes: int = 2_000_000_000,
        limits: Limits = _LIMITS, hung_s: float = 120.0,
    ) -> None:  # fmt: skip
        self.reward, self.max_batch, self.max_wait_s, self.max_rows = reward, max_batch, max_wait_s, max_rows
        self.max_bytes, self.limits, self.hung_s = max_bytes, limits, hung_s
        self.counts: Counter[str] = Counter()
        self.judge_seconds = 0.0
        self._judging_since: float | None = None
        self._waiting: deque[_Piece] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="judge", daemon=True)
        self._thread.start()

    @property
    def num_rows(self) -> int:
        """Rows that wait, without those being judged."""
        with self._changed:
            return sum(len(piece.rollouts) for piece in self._waiting)

    @property
    def judging_s(self) -> float:
        """Seconds since the judge took its batch; 0 where it has none."""
        since = self._judging_since
        return 0.0 if since is None else time.monotonic() - since

    @property
    def is_stuck(self) -> bool:
        """Whether waiting is in vain: the judge has hung, or its thread has ended."""
        return self.judging_s > self.hung_s or not self._thread.is_alive()

    @property
    def trouble(self) -> str:
        """Why no request is taken, "" where all is well."""
        if self._closed:
            return "this server is shutting down"
        if not self._thread.is_alive():
            return "the judge has ended"
        if self.is_stuck:
            return f"the judge has been at one batch for {self.judging_s:.0f} s (hung_s is {self.hung_s:g})"
        return ""

    @property
    def is_open(self) -> bool:
        return not self.trouble

    def submit(self, rollouts: Rollouts, hashes: Sequence[str]) -> list[Future[list[Verdict]]]:
        """Queue rollouts; return futures of their verdicts, which follow each other.

        A future raises UserError where the reward does, or JudgingError. Raises FullError where there is no room for
        these rows, or nothing is judged any more.
        """
        size = rollouts.group_size
        step = max(1, self.max_batch // size) * size
        pieces = [
            _Piece(rollouts.select(range(first, end), size), hashes[first:end])
            for first in range(0, len(rollouts), step)
            for end in [min(first + step, len(rollouts))]
        ]
        with self._changed:
            if trouble := self.trouble:
                raise FullError(trouble)
            # An empty queue takes any request: one that is larger than the queue must be judged, too.
            waiting = sum(len(piece.rollouts) for piece in self._waiting)
            if waiting and waiting + len(rollouts) > self.max_rows:
                raise FullError(f"{waiting} rows wait already, and at most {self.max_rows} may")
            waiting = sum(piece.num_bytes for piece in self._waiting)
            if waiting and waiting + sum(piece.num_bytes for piece in pieces) > self.max_bytes:
                raise FullError(f"pictures of {waiting} bytes wait already, and at most {self.max_bytes} may")
            self._waiting.extend(pieces)
            self._changed.notify()
        return [piece.future for piece in pieces]

    def close(self, patience_s: float | None = None) -> None:
        """Take no more requests; return when all that wait are judged.

        patience_s: seconds after which it returns in any case.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(patience_s)

    def _work(self) -> None:
        """Judge until the queue is closed.

        Whatever goes wrong, the requests concerned get an error and the next batch is judged.
        """
        while True:
            pieces: list[_Piece] = []
            try:
                if not (pieces := self._next_batch()):
                    return
                self._judging_since = time.monotonic()
                self._answer(pieces)
            except BaseException as error:
                self._fail(pieces or self._take_all(), error)
            finally:
                self._judging_since = None

    def _take_all(self) -> list[_Piece]:
        with self._changed:
            pieces = [piece for piece in self._waiting if piece.future.set_running_or_notify_cancel()]
            self._waiting.clear()
        return pieces

    def _fail(self, pieces: Sequence[_Piece], error: BaseException) -> None:
        if not isinstance(error, UserError):
            self.counts["failed_requests"] += len(pieces)
            log.error("no verdicts on %d requests", len(pieces), exc_info=error)
        for piece in pieces:
            if not piece.future.done():
                piece.future.set_exception(error if isinstance(error, UserError) else JudgingError(_one_line(error)))

    def _next_batch(self) -> list[_Piece]:
        """Take the oldest piece and those that fit it; [] when closed and empty."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return []
                deadline = time.monotonic() + self.max_wait_s
                while not self._closed and sum(len(p.rollouts) for p in self._batch_of_first()) < self.max_batch:
                    if not self._changed.wait(max(0.0, deadline - time.monotonic())):
                        break
                batch = self._batch_of_first()
                for piece in batch:
                    self._waiting.remove(piece)
                # Rows of a client that has gone meanwhile are not judged.
                if still_due := [piece for piece in batch if piece.future.set_running_or_notify_cancel()]:
                    return still_due

    def _batch_of_first(self) -> list[_Piece]:
        """List the oldest piece and those that can be judged with it.

        A batch is padded to its longest row, so a long row may not fit beside many short ones.
        """
        first = self._waiting[0]
        batch, rows, longest = [first], len(first.rollouts), first.rollouts.tokens.shape[1]
        most = min(self.max_batch, self.limits.pixels * len(first.rollouts) // max(1, first.num_bytes // 3))
        for piece in list(self._waiting)[1:]:
            if piece.kind != first.kind or (together := rows + len(piece.rollouts)) > most:
                continue
            length = max(longest, piece.rollouts.tokens.shape[1])
            if together * length <= self.limits.tokens:
                batch.append(piece)
                rows, longest = together, length
        return batch

    def _answer(self, pieces: list[_Piece]) -> None:
        began = time.monotonic()
        try:
            batch = Rollouts.join([piece.rollouts for piece in pieces])
            verdicts = judge_rows(self.reward, batch, [h for piece in pieces for h in piece.hashes])
        except Exception as error:
            if len(pieces) == 1:
                self._fail(pieces, error)
            else:  # judge each alone, so that only the request whose rows are at fault gets the error
                for piece in pieces:
                    self._answer([piece])
            return
        self.judge_seconds += time.monotonic() - began
        missing = sum(verdict.reward is None and verdict.applies for verdict in verdicts)
        self.counts.update({"batches": 1, "rows": len(verdicts), "no_verdict_rows": missing})
        for piece in pieces:
            piece.future.set_result(verdicts[: len(piece.hashes)])
            verdicts = verdicts[len(piece.hashes) :]


def judge_rows(reward: Reward, rollouts: Rollouts, hashes: Sequence[str]) -> list[Verdict]:
    """Judge a batch: one verdict per row. A wrong answer of the reward is no verdict.

    Where the judge fails on a batch, each group is tried alone, so that a bad group costs no other its verdict.
    Raises UserError where the reward does: such rollouts cannot be judged at all.
    """
    try:
        return _row_verdicts(reward(rollouts), hashes)
    except (Exception, SystemExit) as error:
        if isinstance(error, UserError) and not isinstance(error, OwnCodeError):
            raise
        size = rollouts.group_size
        if len(rollouts) > size:
            groups = [range(first, first + size) for first in range(0, len(rollouts), size)]
            return [
                verdict
                for rows in groups
                for verdict in judge_rows(reward, rollouts.select(rows, size), [hashes[row] for row in rows])
            ]
        log.exception("%s failed on a group of %d", reward.name, size)
        return [Verdict(hash=row_hash, reward=None, reason=_one_line(error)) for row_hash in hashes]


def _one_line(error: BaseException) -> str:
    message = " ".join(str(error).split())[:200]
    return message if isinstance(error, OwnCodeError) else f"{type(error).__name__}: {message}"


def _row_verdicts(verdicts: Verdicts, hashes: Sequence[str]) -> list[Verdict]:
    """Split verdicts by row. Raises ValueError unless each row got a number."""
    columns = {"": verdicts.rewards, **verdicts.parts}
    flags = {"": verdicts.applies, **verdicts.part_applies}
    for name, values in (*columns.items(), *flags.items()):
        if values.shape != (len(hashes),):
            raise ValueError(f"{name or 'the reward'} has shape {tuple(values.shape)} for {len(hashes)} rollouts")
    numbers = {name: _numbers(values) for name, values in columns.items()}
    applies = {name: values.tolist() for name, values in flags.items()}
    rows = []
    for row, row_hash in enumerate(hashes):
        missing = numbers[""][row] is None and applies[""][row]
        rows.append(
            Verdict(
                hash=row_hash,
                reward=numbers[""][row],
                applies=applies[""][row],
                components={name: values[row] for name, values in numbers.items() if name},
                component_applies={name: values[row] for name, values in applies.items() if name and not values[row]},
                reason="the judge has no verdict" if missing else None,
            )
        )
    return rows


def _numbers(values: Tensor) -> list[float | None]:
    finite = torch.isfinite(values).tolist()
    return [value if is_finite else None for value, is_finite in zip(values.tolist(), finite)]
