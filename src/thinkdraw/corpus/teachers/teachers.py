"""Who writes: an OpenAI-compatible endpoint (`endpoint.py`), a local model that writes, or the lab's grammar.

A teacher answers one request at a time from the loop's point of view; what it is asked follows from the item and the attempt
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
from thinkdraw.corpus.queue import TeacherAnswer
from thinkdraw.corpus.sources import Item
from thinkdraw.corpus.teachers import instructions
from thinkdraw.corpus.teachers.grammar import grammar_answer
from thinkdraw.types import Request, Writer


@dataclass(frozen=True)
class TeacherRequest:
    """A request: the item, its picture (H, W, 3) uint8 or None, and the malformed replies so far, each with its problem."""

    item: Item
    picture: np.ndarray | None
    said: Sequence[TeacherAnswer] = ()

    @property
    def seed(self) -> int:
        """31 bits that follow from the item and the attempt."""
        text = f"{self.item.index}\n{self.item.id}\n{len(self.said)}"
        return int.from_bytes(hashlib.sha256(text.encode("utf-8", "backslashreplace")).digest()[:4]) >> 1


@dataclass(frozen=True)
class TeacherReply:
    """problem: (kind, sentence for the teacher) of a text that is no answer because it was cut or refused."""

    text: str
    tokens_in: int = 0
    tokens_out: int = 0
    problem: tuple[str, str] | None = None


class BusyError(Exception):
    """Not now: over the rate limit, overloaded, or no connection. retry_after_s: as the teacher says, or None."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeclinedError(Exception):
    """This request will not be answered, however often it is sent: too large, or against the teacher's rules."""


class Teacher(Protocol):
    """Raises BusyError, DeclinedError, or UserError for what no later request can get past (key, model name)."""

    name: str
    concurrency: int

    async def ask(self, ask: TeacherRequest) -> TeacherReply: ...

    async def close(self) -> None: ...


class GrammarSettings(StrictModel):
    """The lab's grammar; it writes about the lab's pictures and prompts only."""

    kind: Literal["grammar"] = Field(
        default="grammar", description="The lab's grammar, which writes about the lab's pictures and prompts only."
    )


class WriterSettings(StrictModel):
    """A local model that looks and writes, by its name among the judges or as pkg.mod:Class."""

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
    name, concurrency = "the lab's grammar", 1

    async def ask(self, ask: TeacherRequest) -> TeacherReply:
        return TeacherReply(grammar_answer(ask.item.prompt, ask.picture, ask.seed))

    async def close(self) -> None:
        pass


class WriterTeacher:
    """A `Writer` asked in batches, off the event loop; the batch that a request falls into must not matter to it."""

    def __init__(self, writer: Writer, settings: WriterSettings) -> None:
        self.name, self.concurrency = settings.name, 2 * settings.batch
        self._writer, self._settings = writer, settings
        self._waiting: list[tuple[Request, asyncio.Future[str | None]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def ask(self, ask: TeacherRequest) -> TeacherReply:
        text = "\n\n".join(part for _, part in conversation(ask, self._settings.language))
        pictures = () if ask.picture is None else (ask.picture,)
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((Request(text, pictures), future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run())
        answer = await future
        if answer is None:
            raise DeclinedError(f"{self.name} gave no answer")
        return TeacherReply(answer, len(text) // 4, len(answer) // 4)

    async def _run(self) -> None:
        await asyncio.sleep(0)  # lets the other workers put their requests in
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


def conversation(ask: TeacherRequest, language: str) -> list[tuple[str, str]]:
    """(role, text) from the instruction to the last problem; what a malformed reply said is cut to 2,000 characters."""
    turns = [
        ("system", instructions.system(language)),
        ("user", instructions.question(ask.picture is not None, ask.item.prompt.text)),
    ]
    for said in ask.said:
        shown = "".join(c if c.isprintable() or c == "\n" else "�" for c in said.reply[:2000])
        turns += [("assistant", shown or "(nothing)"), ("user", instructions.retry(said.problem))]
    return turns
