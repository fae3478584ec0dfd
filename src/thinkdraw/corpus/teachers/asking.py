"""Asking a teacher about every waiting item of a queue: several at a time, each until its answer fits or its attempts are used."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from thinkdraw.corpus.changes import stamp_in
from thinkdraw.corpus.filters.filters import ShapeSettings, bad_shape
from thinkdraw.corpus.queue import FILTERED, REJECTED, WAITING, Counts, Queue, TeacherAnswer
from thinkdraw.corpus.sources import Item, Source
from thinkdraw.corpus.teachers.answers import MalformedError, parse_answer
from thinkdraw.corpus.teachers.limits import Budget, LimitSettings, Pace, Room, back_off_s
from thinkdraw.corpus.teachers.teachers import BusyError, DeclinedError, Teacher, TeacherReply, TeacherRequest
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import DEFAULT_CONFIG, PictureReaderConfig, UnreadableError, picture_size, read_with_notes
from thinkdraw.runtime.inputs.hashing import content_digest

PIXELS_AT_ONCE = 1 << 29
"""Of pictures that are asked about at the same time: 1.6 GB."""
MAX_DECLINED = 8
"""Requests in a row that are declined before any is answered: then it is the request's form, and the run stops."""


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
    """Ask about all that waits; what was done to a picture when it was read is noted in the queue.

    pictures: how they are read. True when nothing is left, False when the budget is used up.

    Raises UserError where the teacher cannot be reached; what was answered is kept, and the next call goes on.
    """
    return asyncio.run(_Loop(queue, source, teacher, limits, shape, show, pictures).run())


class _Loop:
    def __init__(
        self, queue: Queue, source: Source, teacher: Teacher, limits: LimitSettings, shape: ShapeSettings,
        show: Callable[[Status], None], pictures: PictureReaderConfig,
    ) -> None:  # fmt: skip
        counts = queue.counts()
        self.pictures, self.room = pictures, Room(PIXELS_AT_ONCE)
        self.queue, self.source, self.teacher, self.limits, self.shape = queue, source, teacher, limits, shape
        self.pace, self.budget = Pace(limits), Budget(limits, counts.tokens_in, counts.tokens_out)
        self.declined: list[tuple[int, str]] = []
        self.any_answer = counts.requests > 0
        self.last_answer = self.began = time.monotonic()
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
                # The others end what they have under way, which is paid for, and then stop.
                self.stopped = self.stopped or error
                return
            self.report()

    async def settle(self, item: Item) -> None:
        """Ask about one item until its answer fits or its attempts are used."""
        if not item.has_picture:
            return await self.ask_until_it_fits(item, None)
        try:
            stamp = stamp_in(self.source, item)  # before it is read: what changes afterwards has another
            data = await asyncio.to_thread(self.source.picture, item)
            self.queue.saw(item.index, stamp, content_digest([data]))
            width, height = picture_size(data, self.pictures)
        except (UnreadableError, OSError) as error:
            return self.queue.settle(item.index, REJECTED, reason=f"unreadable picture: {error}")
        async with self.room.hold(width * height):
            try:
                read = await asyncio.to_thread(read_with_notes, data, self.pictures)
            except UnreadableError as error:
                return self.queue.settle(item.index, REJECTED, reason=f"unreadable picture: {error}")
            self.queue.note(item.index, read.notes)
            high, wide, _ = read.pixels.shape
            if reason := bad_shape(wide, high, self.shape):
                return self.queue.settle(item.index, FILTERED, reason=f"picture: {reason}")
            await self.ask_until_it_fits(item, read.pixels)

    async def ask_until_it_fits(self, item: Item, picture: np.ndarray | None) -> None:
        """Ask about one item, its picture read, until its answer fits or its attempts are used."""
        said = self.queue.replies(item.index)
        while True:
            reply = await self.reply_to(TeacherRequest(item, picture, tuple(said)))
            if reply is None:
                return None
            attempt, answer = _checked(reply)
            done = answer is not None or len(said) + 1 >= self.limits.attempts
            reason = f"{attempt.kind}: {attempt.problem}" if done and answer is None else None
            self.queue.record(item.index, len(said), attempt, answer, reason)
            if done:
                return None
            said.append(attempt)

    async def reply_to(self, ask: TeacherRequest) -> TeacherReply | None:
        """The reply; None where the budget is used up, the run stops, or the request was declined."""
        tries = 0
        while not self.stopped and await self.reserve():
            try:
                await self.pace.turn()
                reply = await self.teacher.ask(ask)
            except BusyError as error:
                self.budget.end()
                tries += 1
                self.give_up_if_silent(error)
                await self.wait(back_off_s(tries, ask.seed, self.limits.first_wait_s), error)
                continue
            except DeclinedError as error:
                self.budget.end()
                return self.decline(ask, str(error))
            except BaseException:
                self.budget.end()
                raise
            self.budget.end(reply.tokens_in, reply.tokens_out)
            self.pace.used(reply.tokens_in + reply.tokens_out)
            self.last_answer, self.any_answer = time.monotonic(), True
            return reply
        return None

    async def reserve(self) -> bool:
        """Wait until the budget holds one request more. False where it never will."""
        while not self.budget.start():
            if not self.budget.can_ever() or self.stopped:
                self.out_of_budget = True
                return False
            await asyncio.sleep(0.02)
        return True

    async def wait(self, seconds: float, error: BusyError) -> None:
        """This request's own back-off; where the teacher says how long, all requests wait."""
        if error.retry_after_s is None:
            await asyncio.sleep(seconds)
        else:
            self.pace.hold(min(error.retry_after_s, 600.0))

    def give_up_if_silent(self, error: BusyError) -> None:
        silent_s = time.monotonic() - self.last_answer
        if silent_s > self.limits.give_up_after_s:
            raise UserError(
                f"{self.teacher.name} has not answered for {silent_s:.0f} s ({error}). What is written is kept: run the same "
                "command again to go on."
            ) from error

    def decline(self, ask: TeacherRequest, reason: str) -> None:
        if self.any_answer:
            self.queue.settle(ask.item.index, REJECTED, reason=f"declined: {reason}")
            return
        self.declined.append((ask.item.index, f"declined: {reason}"))
        if len(self.declined) >= MAX_DECLINED:
            self.refuse_the_form(reason)

    def refuse_the_form(self, reason: str) -> NoReturn:
        raise UserError(
            f"{self.teacher.name} declined all of the first {len(self.declined)} requests "
            f"({reason.removeprefix('declined: ')}). Correct the teacher's settings; structured=none suits an endpoint that "
            "knows no JSON schema, extra_body={FIELD: null} takes a field out."
        )

    def report(self, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now < self.show_at:
            return
        counts = self.queue.counts()
        # Counting goes through all replies: in a corpus of a million it must not be what takes the time.
        self.show_at = now + max(0.5, 50 * (time.monotonic() - now))
        done = self.first.waiting - counts.waiting
        rate = done / max(now - self.began, 1e-9)
        self.show(Status(counts, rate, self.budget.money, counts.waiting / rate if done else None))


def _checked(reply: TeacherReply) -> tuple[TeacherAnswer, str | None]:
    """What to record of a reply, and the answer in it as JSON, or None."""
    try:
        answer = parse_answer(reply.text)
    except MalformedError as error:
        kind, problem = reply.problem or (error.kind, str(error))
        text = reply.text.encode("utf-8", "replace").decode()
        return TeacherAnswer(text, kind, problem, reply.tokens_in, reply.tokens_out), None
    # The reply itself is not kept where its content is: the file would be twice as large.
    return TeacherAnswer("", "", "", reply.tokens_in, reply.tokens_out), answer.model_dump_json()
