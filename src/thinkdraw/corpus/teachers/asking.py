"""Asks a teacher about every waiting item of a queue, several at a time.

An item is asked about until its answer fits or its attempts are used up.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from thinkdraw.corpus.changes import picture_stamp
from thinkdraw.corpus.filters.filters import ShapeSettings, bad_shape
from thinkdraw.corpus.queue import FILTERED, REJECTED, WAITING, Attempt, Counts, Queue
from thinkdraw.corpus.sources import Item, Source
from thinkdraw.corpus.teachers.answers import MalformedError, parse_answer
from thinkdraw.corpus.teachers.limits import Budget, Capacity, LimitSettings, Pace, back_off_s
from thinkdraw.corpus.teachers.teachers import BusyError, DeclinedError, Teacher, TeacherReply, TeacherRequest
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import DEFAULT_CONFIG, PictureReaderConfig, UnreadableError, picture_size, read_with_notes
from thinkdraw.runtime.inputs.hashing import content_digest

logger = logging.getLogger(__name__)

FIRST_TRIES = 3  # without a connection, before a teacher that has never answered is given up
WARN_EVERY_S = 30.0
PIXELS_AT_ONCE = 1 << 29
"""Pixels of all pictures that are asked about at the same time; at 3 bytes each they take 1.6 GB."""
MAX_DECLINED = 8
"""If so many requests are declined before any is answered, the form of the requests is wrong, and the run stops."""


@dataclass(frozen=True)
class Status:
    """What a person sees while it runs. left_s: None until it is known."""

    counts: Counts
    rows_per_s: float
    money: float
    left_s: float | None


def ask_all(
    queue: Queue, source: Source, teacher: Teacher, limits: LimitSettings, shape: ShapeSettings,
    show: Callable[[Status], None] = lambda status: None, pictures: PictureReaderConfig = DEFAULT_CONFIG,
) -> bool:  # fmt: skip
    """Ask about all that waits. True if nothing is left, False if the budget ended.

    pictures: how they are read; what was done to a picture is noted in the queue.
    Raises UserError where the teacher cannot be reached. Answers that came are stored, and the next call goes on.
    """
    return asyncio.run(_AskingLoop(queue, source, teacher, limits, shape, show, pictures).run())


class _AskingLoop:
    """The workers that ask, and what they share.

    They share the pace, the budget, memory for pictures, and the reason why they stopped.
    """

    def __init__(
        self, queue: Queue, source: Source, teacher: Teacher, limits: LimitSettings, shape: ShapeSettings,
        show: Callable[[Status], None], pictures: PictureReaderConfig,
    ) -> None:  # fmt: skip
        counts = queue.counts()
        self.pictures, self.capacity = pictures, Capacity(PIXELS_AT_ONCE)
        self.queue, self.source, self.teacher, self.limits, self.shape = queue, source, teacher, limits, shape
        self.pace, self.budget = Pace(limits), Budget(limits, counts.tokens_in, counts.tokens_out)
        self.declined: list[tuple[int, str]] = []
        self.any_answer = counts.requests > 0
        self.last_answer = self.began = time.monotonic()
        self.next_warning_s = WARN_EVERY_S  # of silence
        self.stopped: Exception | None = None
        self.out_of_budget = False
        self.show = show
        self.first, self.show_at = counts, 0.0

    async def run(self) -> bool:
        waiting = iter(self.queue.indices(WAITING))
        workers = [asyncio.create_task(self.work(waiting)) for _ in range(self.teacher.concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            await self.teacher.close()
        if self.stopped:
            raise self.stopped
        if self.declined and not self.any_answer:
            self.refuse_the_form(self.declined[0][1])
        for index, reason in self.declined:
            self.queue.settle(index, REJECTED, reason=reason)
        self.report(last=True)
        return not self.out_of_budget

    async def work(self, waiting: Iterator[int]) -> None:
        for index in waiting:
            if self.stopped or self.out_of_budget:
                return
            try:
                await self.settle(self.queue.item(index))
            except Exception as error:
                # The other workers finish their requests, which are paid for, and then stop.
                self.stopped = self.stopped or error
                return
            self.report()

    async def settle(self, item: Item) -> None:
        """Ask about one item until its answer fits or its attempts are used up."""
        if not item.has_picture:
            return await self.ask_until_it_fits(item, None)
        try:
            stamp = picture_stamp(self.source, item)  # before reading, so that a change during it gives another stamp
            data = await asyncio.to_thread(self.source.picture, item)
            self.queue.record_picture(item.index, stamp, content_digest([data]))
            width, height = picture_size(data, self.pictures)
        except (UnreadableError, OSError) as error:
            return self.queue.settle(item.index, REJECTED, reason=f"unreadable picture: {error}")
        async with self.capacity.hold(width * height):
            try:
                read = await asyncio.to_thread(read_with_notes, data, self.pictures)
            except UnreadableError as error:
                return self.queue.settle(item.index, REJECTED, reason=f"unreadable picture: {error}")
            self.queue.set_notes(item.index, read.notes)
            high, wide, _ = read.pixels.shape
            if reason := bad_shape(wide, high, self.shape):
                return self.queue.settle(item.index, FILTERED, reason=f"picture: {reason}")
            await self.ask_until_it_fits(item, read.pixels)

    async def ask_until_it_fits(self, item: Item, picture: np.ndarray | None) -> None:
        """Ask about one item, whose picture is read, until its answer fits.

        It stops when the attempts are used up.
        """
        attempts = self.queue.replies(item.index)
        while True:
            reply = await self.reply_to(TeacherRequest(item, picture, tuple(attempts)))
            if reply is None:
                return None
            attempt, answer = _parse_reply(reply)
            done = answer is not None or len(attempts) + 1 >= self.limits.attempts
            reason = f"{attempt.kind}: {attempt.problem}" if done and answer is None else None
            self.queue.record(item.index, len(attempts), attempt, answer, reason)
            if done:
                return None
            attempts.append(attempt)

    async def reply_to(self, request: TeacherRequest) -> TeacherReply | None:
        """Send a request, again while the teacher is busy; return the reply.

        None where the budget is used up, the run stops, or the request was declined. What is charged to the budget is
        the reply's own count of tokens; a request without a reply charges nothing.
        """
        tries = 0
        while not self.stopped and await self.reserve():
            try:
                await self.pace.wait_turn()
                reply = await self.teacher.ask(request)
            except BusyError as error:
                self.budget.settle()
                tries += 1
                self.give_up_if_silent(error, tries)
                await self.wait(back_off_s(tries, request.seed, self.limits.first_wait_s), error)
                continue
            except DeclinedError as error:
                self.budget.settle()
                return self.decline(request, str(error))
            except BaseException:
                self.budget.settle()
                raise
            self.budget.settle(reply.tokens_in, reply.tokens_out)
            self.pace.charge(reply.tokens_in + reply.tokens_out)
            self.last_answer, self.any_answer, self.next_warning_s = time.monotonic(), True, WARN_EVERY_S
            return reply
        return None

    async def reserve(self) -> bool:
        """Wait until the budget has room for one more request; False if it never will."""
        while not self.budget.reserve():
            if not self.budget.could_fit() or self.stopped:
                self.out_of_budget = True
                return False
            await asyncio.sleep(0.02)
        return True

    async def wait(self, seconds: float, error: BusyError) -> None:
        """Wait before a retry.

        Where the teacher says how long, all requests wait; else only this one does, by its own back-off.
        """
        if error.retry_after_s is None:
            await asyncio.sleep(seconds)
        else:
            self.pace.pause(min(error.retry_after_s, 600.0))

    def give_up_if_silent(self, error: BusyError, tries: int) -> None:
        """Raise UserError for a teacher that was never there, or is silent for too long."""
        silent_s = time.monotonic() - self.last_answer
        if error.no_connection and tries >= FIRST_TRIES and self.last_answer == self.began:
            raise UserError(
                f"{self.teacher.name} cannot be reached ({error}). Check teacher.base_url, and that its server runs. Run the same "
                "command again to go on."
            ) from error
        if silent_s > self.next_warning_s:
            self.next_warning_s = silent_s + WARN_EVERY_S
            logger.warning("%s has not answered for %.0f s (%s): it is asked again", self.teacher.name, silent_s, error)
        if silent_s > self.limits.give_up_after_s:
            raise UserError(
                f"{self.teacher.name} has not answered for {silent_s:.0f} s ({error}). Answers so far are stored. Run the same "
                "command again to go on."
            ) from error

    def decline(self, request: TeacherRequest, reason: str) -> None:
        if self.any_answer:
            self.queue.settle(request.item.index, REJECTED, reason=f"declined: {reason}")
            return
        self.declined.append((request.item.index, f"declined: {reason}"))
        if len(self.declined) >= MAX_DECLINED:
            self.refuse_the_form(reason)

    def refuse_the_form(self, reason: str) -> NoReturn:
        raise UserError(
            f"{self.teacher.name} declined all of the first {len(self.declined)} requests "
            f"({reason.removeprefix('declined: ')}). Correct the teacher's settings. structured=none suits an endpoint that "
            "knows no JSON schema; extra_body={FIELD: null} removes a field."
        )

    def report(self, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now < self.show_at:
            return
        counts = self.queue.counts()
        # Counting goes through all replies. It may take 2 % of the time at most, also in a corpus of a million.
        self.show_at = now + max(0.5, 50 * (time.monotonic() - now))
        done = self.first.waiting - counts.waiting
        rate = done / max(now - self.began, 1e-9)
        self.show(Status(counts, rate, self.budget.money, counts.waiting / rate if done else None))


def _parse_reply(reply: TeacherReply) -> tuple[Attempt, str | None]:
    """Return the attempt to record, and the answer as JSON or None."""
    try:
        answer = parse_answer(reply.text)
    except MalformedError as error:
        kind, problem = reply.problem or (error.kind, str(error))
        text = reply.text.encode("utf-8", "replace").decode()
        return Attempt(text, kind, problem, reply.tokens_in, reply.tokens_out), None
    # The reply's text is not stored beside its parsed content: the file would be twice as large.
    return Attempt("", "", "", reply.tokens_in, reply.tokens_out), answer.model_dump_json()
