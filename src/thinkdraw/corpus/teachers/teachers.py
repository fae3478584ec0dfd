"""Teachers: an OpenAI-compatible endpoint, a local model, or the lab's grammar.

A teacher answers one request at a time from the loop's point of view. A request follows from the item and its attempts
alone, so the order in which answers come changes nothing.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.corpus.queue import Attempt
from thinkdraw.corpus.sources import Item
from thinkdraw.corpus.teachers import instructions
from thinkdraw.corpus.teachers.grammar import grammar_answer
from thinkdraw.types import Request, Writer


@dataclass(frozen=True)
class TeacherRequest:
    """A request: item, picture (H, W, 3) uint8 or None, and malformed attempts so far."""

    item: Item
    picture: np.ndarray | None
    attempts: Sequence[Attempt] = ()

    @property
    def seed(self) -> int:
        """31 bits that follow from the item and the number of attempts."""
        text = f"{self.item.index}\n{self.item.id}\n{len(self.attempts)}"
        return int.from_bytes(hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()[:4]) >> 1


@dataclass(frozen=True)
class TeacherReply:
    """What a teacher replied.

    problem: (kind, sentence for the teacher), if the text is no answer because it was cut or refused.
    """

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    problem: tuple[str, str] | None = None


class BusyError(Exception):
    """The teacher cannot answer now: rate limit, overload, or no connection.

    retry_after_s: as the teacher says, or None. no_connection: nobody listens at its address.
    """

    def __init__(self, message: str, retry_after_s: float | None = None, no_connection: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s, self.no_connection = retry_after_s, no_connection


class DeclinedError(Exception):
    """The teacher will never answer this request: too large, or against its rules."""


class Teacher(Protocol):
    """Somebody who answers requests.

    `ask` raises BusyError, DeclinedError, or UserError for what stops all later requests, too (key, model name).
    """

    name: str
    concurrency: int

    async def ask(self, request: TeacherRequest) -> TeacherReply: ...

    async def close(self) -> None: ...


class GrammarSettings(StrictModel):
    """The lab's grammar; it writes about the lab's pictures and prompts only."""

    kind: Literal["grammar"] = Field(
        default="grammar", description="The lab's grammar, which writes about the lab's pictures and prompts only."
    )


class WriterSettings(StrictModel):
    """A local model that looks and writes, by name or as pkg.mod:Class.

    The names are those of `thinkdraw list judges`.
    """

    kind: Literal["writer"] = Field(
        default="writer", description="A model on this machine that looks at pictures and writes."
    )
    name: str = Field(description="Judge that writes: a name of `thinkdraw list judges`, or pkg.mod:Class of your own.")
    settings: dict = Field(default={}, description="What the judge is made with: its constructor's parameters.")
    batch: int = Field(
        default=8, ge=1, description="Requests that the model answers together. More are faster and need more memory."
    )
    language: str = Field(default="English", description="Language that the teacher is told to write in.")


class GrammarTeacher:
    """The lab's grammar as a teacher."""

    name, concurrency = "the lab's grammar", 1

    async def ask(self, request: TeacherRequest) -> TeacherReply:
        return TeacherReply(grammar_answer(request.item.prompt, request.picture, request.seed))

    async def close(self) -> None:
        pass


class WriterTeacher:
    """A `Writer` asked in batches, off the event loop.

    The batch that a request falls into must not change its reply.
    """

    def __init__(self, writer: Writer, settings: WriterSettings) -> None:
        self.name, self.concurrency = settings.name, 2 * settings.batch
        self._writer, self._settings = writer, settings
        self._waiting: list[tuple[Request, asyncio.Future[str | None]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def ask(self, request: TeacherRequest) -> TeacherReply:
        text = "\n\n".join(turn for _, turn in conversation(request, self._settings.language))
        pictures = () if request.picture is None else (request.picture,)
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((Request(text, pictures), future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        answer = await future
        if answer is None:
            raise DeclinedError(f"{self.name} gave no answer")
        return TeacherReply(answer, len(text) // 4, len(answer) // 4)

    async def _run(self) -> None:
        await asyncio.sleep(0)  # so that the other workers can add their requests to the batch
        while self._waiting:
            batch, self._waiting = self._waiting[: self._settings.batch], self._waiting[self._settings.batch :]
            try:
                answers = await asyncio.to_thread(self._writer.write, [request for request, _ in batch])
            except Exception as error:
                for _, future in batch:
                    future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)

    async def close(self) -> None:
        pass


def conversation(request: TeacherRequest, language: str) -> list[tuple[str, str]]:
    """List (role, text) from the instruction to the last problem.

    The text of a malformed reply is cut to 2,000 characters.
    """
    turns = [
        ("system", instructions.system(language)),
        ("user", instructions.question(request.picture is not None, request.item.prompt.text)),
    ]
    for attempt in request.attempts:
        reply = "".join(c if c.isprintable() or c == "\n" else "�" for c in attempt.reply[:2000])
        turns += [("assistant", reply or "(nothing)"), ("user", instructions.retry(attempt.problem))]
    return turns
