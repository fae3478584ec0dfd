"""The work queue on disk: what was asked, answered and paid, in a SQLite file.

A kill at any moment leaves the file consistent. An answer is on disk before the next step, so a run that goes on pays
again only for requests that were under way. A power cut may lose the last moments, never the file. One process at a
time holds the file.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from thinkdraw.corpus.sources import Item
from thinkdraw.data.prompt_files import prompt_of, row_of
from thinkdraw.errors import UserError
from thinkdraw.runtime.files import write_error
from thinkdraw.runtime.formats import one_line, parse_json, sqlite_problem
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt

WAITING, ANSWERED, REJECTED, FILTERED = range(4)
PAGE = 500
CONTENT = "answers"
_TABLES = """
CREATE TABLE IF NOT EXISTS items (idx INTEGER PRIMARY KEY, item TEXT NOT NULL, state INTEGER NOT NULL DEFAULT 0, answer TEXT, reason TEXT);
CREATE INDEX IF NOT EXISTS by_state ON items (state, idx);
CREATE TABLE IF NOT EXISTS replies (idx INTEGER, attempt INTEGER, reply TEXT, kind TEXT, problem TEXT, tokens_in INTEGER,
  tokens_out INTEGER, PRIMARY KEY (idx, attempt)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS verdicts (idx INTEGER, judge TEXT, value REAL, PRIMARY KEY (idx, judge)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (idx INTEGER PRIMARY KEY, png BLOB);
CREATE TABLE IF NOT EXISTS notes (idx INTEGER, note TEXT, PRIMARY KEY (idx, note)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS seen (idx INTEGER PRIMARY KEY, stamp TEXT, digest TEXT);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Attempt:
    """One reply of the teacher about an item: malformed, or used.

    kind, problem: of a malformed reply; both are empty for the reply that was used.
    """

    reply: str
    kind: str = ""
    problem: str = ""
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class Counts:
    """Items by state, and what was asked so far."""

    waiting: int = 0
    answered: int = 0
    rejected: int = 0
    filtered: int = 0
    requests: int = 0
    malformed: int = 0
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def total(self) -> int:
        return self.waiting + self.answered + self.rejected + self.filtered


class Queue:
    """The queue, as a context manager.

    Raises UserError where another process holds the file or the file is no queue.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(path.parent, error) from error
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0.5)
        except sqlite3.Error as error:
            raise sqlite_problem(path, error, CONTENT) from error
        try:
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_TABLES)
            self._db.execute("INSERT OR REPLACE INTO facts VALUES ('opened', 'yes')")  # takes the lock now, not later
        except sqlite3.Error as error:
            self._db.close()
            if "locked" in str(error):
                raise UserError(
                    f"{path} is locked. Is another `corpus write` of this folder running? Wait for it."
                ) from error
            raise sqlite_problem(path, error, CONTENT) from error

    def __enter__(self) -> "Queue":
        return self

    def __exit__(self, *raised: object) -> None:
        with suppress(sqlite3.Error):  # a full disk has already raised its own error
            self._db.close()
        for error in raised:
            if isinstance(error, sqlite3.Error):
                raise sqlite_problem(self.path, error, CONTENT) from error

    def fill(self, items: Iterable[Item], counts: Mapping[str, int] | None = None) -> int:
        """Put in all items in one transaction, unless that was done; return their number.

        counts: what the source counts while it is read; stored, see `source_counts`.
        """
        if self.fact("items") in (None, "0"):
            with self._transaction():
                rows = ((item.index, _item_text(item)) for item in items)
                self._db.executemany("INSERT INTO items (idx, item) VALUES (?, ?)", rows)
                self._db.execute("INSERT OR REPLACE INTO facts SELECT 'items', count(*) FROM items")
                self._db.execute("INSERT OR REPLACE INTO facts VALUES ('source', ?)", (json.dumps(counts or {}),))
        return self._db.execute("SELECT count(*) FROM items").fetchone()[0]

    def source_counts(self) -> dict[str, int]:
        """Return what the source counted when it was read; empty if that was not stored."""
        with self._name_damage("the record of the source"):
            return {str(reason): int(count) for reason, count in parse_json(self.fact("source") or "{}").items()}

    def clear(self) -> None:
        """Remove all items; only for a queue of which nothing was asked yet."""
        with self._transaction():
            for table in ("items", "notes", "seen", "facts"):
                self._db.execute(f"DELETE FROM {table}")

    def items(self) -> Iterator[Item]:
        """Yield all items in order."""
        for index, text in self._db.execute("SELECT idx, item FROM items ORDER BY idx"):
            yield self._item(index, text)

    def as_stored(self, item: Item) -> Item:
        """Return the item as the queue would give it back, after JSON."""
        return self._item(item.index, _item_text(item))

    def set_source_counts(self, counts: Mapping[str, int]) -> None:
        self._db.execute("INSERT OR REPLACE INTO facts VALUES ('source', ?)", (json.dumps(counts),))

    def append(self, items: Iterable[Item]) -> None:
        """Put items behind all others."""
        with self._transaction():
            (last,) = self._db.execute("SELECT coalesce(max(idx), -1) FROM items").fetchone()
            rows = ((last + number, _item_text(item)) for number, item in enumerate(items, start=1))
            self._db.executemany("INSERT INTO items (idx, item) VALUES (?, ?)", rows)
            self._db.execute("INSERT OR REPLACE INTO facts SELECT 'items', count(*) FROM items")

    def ask_again(self, item: Item) -> None:
        """Replace an item whose content changed, so that it waits again.

        What was paid for its former content stays in the counts.
        """
        index, aside = item.index, -1 - item.index  # a negative index holds the replies to former content
        with self._transaction():
            (used,) = self._db.execute(
                "SELECT coalesce(max(attempt) + 1, 0) FROM replies WHERE idx = ?", (aside,)
            ).fetchone()
            self._db.execute("UPDATE replies SET idx = ?, attempt = attempt + ? WHERE idx = ?", (aside, used, index))
            for table in ("verdicts", "pictures", "notes", "seen"):
                self._db.execute(f"DELETE FROM {table} WHERE idx = ?", (index,))
            self._db.execute("UPDATE items SET item = ? WHERE idx = ?", (_item_text(item), index))
            self.settle(index, WAITING)

    def update_ref(self, item: Item) -> None:
        """Store where the item's picture is now."""
        self._db.execute("UPDATE items SET item = ? WHERE idx = ?", (_item_text(item), item.index))

    def record_picture(self, index: int, stamp: str, digest: str) -> None:
        """Store which picture is asked about.

        digest: of its content. stamp: changes with the file, and is known without reading it.
        """
        self._db.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (index, stamp, digest))

    def recorded_picture(self, index: int) -> tuple[str, str]:
        """Return (stamp, digest) of the picture that was asked about; "" if unknown."""
        row = self._db.execute("SELECT stamp, digest FROM seen WHERE idx = ?", (index,)).fetchone()
        return row or ("", "")

    def fact(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def item(self, index: int) -> Item:
        return self._item(index, self._db.execute("SELECT item FROM items WHERE idx = ?", (index,)).fetchone()[0])

    def indices(self, state: int) -> list[int]:
        return [row[0] for row in self._db.execute("SELECT idx FROM items WHERE state = ? ORDER BY idx", (state,))]

    def answered_items(self) -> Iterator[tuple[Item, JsonObject]]:
        """Yield items with their answers, in order.

        Only a page of them is in memory; the queue may be written to in between.
        """
        query = "SELECT idx, item, answer FROM items WHERE state = ? AND idx > ? ORDER BY idx LIMIT ?"
        last = -1
        while rows := self._db.execute(query, (ANSWERED, last, PAGE)).fetchall():
            for index, item, answer in rows:
                with self._name_damage(f"the answer about item {index}"):
                    fields = parse_json(answer)
                    if not isinstance(fields, dict):
                        raise ValueError("it is no object")
                yield self._item(index, item), fields
            last = rows[-1][0]

    def excluded_items(self, state: int) -> Iterator[tuple[Item, str, list[Attempt]]]:
        """Yield rejected or filtered items with reason and attempts, in order."""
        query = "SELECT idx, item, reason FROM items WHERE state = ? ORDER BY idx"
        for index, item, reason in self._db.execute(query, (state,)):
            yield self._item(index, item), reason, self.replies(index)

    def replies(self, index: int) -> list[Attempt]:
        query = "SELECT reply, kind, problem, tokens_in, tokens_out FROM replies WHERE idx = ? ORDER BY attempt"
        return [Attempt(*row) for row in self._db.execute(query, (index,))]

    def record(
        self, index: int, number: int, attempt: Attempt, answer: str | None = None, reason: str | None = None
    ) -> None:
        """Store an attempt and what becomes of its item, in one transaction.

        The item gets an answer, or a reason to be set aside, or neither yet. number: of the attempt, from 0.
        """
        with self._transaction():
            self._db.execute(
                "INSERT INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", (index, number, *asdict(attempt).values())
            )
            if answer is not None or reason is not None:
                self.settle(index, REJECTED if answer is None else ANSWERED, answer, reason)

    def settle(self, index: int, state: int, answer: str | None = None, reason: str | None = None) -> None:
        self._db.execute(
            "UPDATE items SET state = ?, answer = ?, reason = ? WHERE idx = ?", (state, answer, reason, index)
        )

    def verdicts(self, judge: str) -> dict[int, float]:
        """Return a judge's verdicts: index → value; NaN = no verdict."""
        rows = self._db.execute("SELECT idx, value FROM verdicts WHERE judge = ?", (judge,))
        return {index: float("nan") if value is None else value for index, value in rows}

    def add_verdicts(self, judge: str, values: dict[int, float]) -> None:
        with self._transaction():
            self._db.executemany("INSERT INTO verdicts VALUES (?, ?, ?)", ((i, judge, v) for i, v in values.items()))

    def set_notes(self, index: int, notes: Iterable[str]) -> None:
        """Store what was done to an item's picture when it was read."""
        self._db.execute("DELETE FROM notes WHERE idx = ?", (index,))
        self._db.executemany("INSERT OR IGNORE INTO notes VALUES (?, ?)", ((index, note) for note in notes))

    def notes(self) -> Iterator[tuple[int, str]]:
        """Yield (index, what was done to its picture)."""
        yield from self._db.execute("SELECT idx, note FROM notes ORDER BY idx, note")

    def drawn_indices(self) -> set[int]:
        return {row[0] for row in self._db.execute("SELECT idx FROM pictures")}

    def add_pictures(self, pictures: dict[int, bytes]) -> None:
        with self._transaction():
            self._db.executemany("INSERT INTO pictures VALUES (?, ?)", pictures.items())

    def picture(self, index: int) -> bytes | None:
        row = self._db.execute("SELECT png FROM pictures WHERE idx = ?", (index,)).fetchone()
        return row[0] if row else None

    def counts(self) -> Counts:
        states = dict(self._db.execute("SELECT state, count(*) FROM items GROUP BY state").fetchall())
        replies = self._db.execute(
            "SELECT count(*), count(*) FILTER (WHERE kind != ''), coalesce(sum(tokens_in), 0), coalesce(sum(tokens_out), 0) FROM replies"
        ).fetchone()
        return Counts(*(states.get(state, 0) for state in range(4)), *replies)

    def malformed_kinds(self) -> dict[str, int]:
        query = "SELECT kind, count(*) FROM replies WHERE kind != '' GROUP BY kind ORDER BY kind"
        return dict(self._db.execute(query).fetchall())

    def _item(self, index: int, text: str) -> Item:
        with self._name_damage(f"item {index}"):
            row = parse_json(text)
            prompt = prompt_of(row["prompt"], row["id"], index) if row["prompt"] else Prompt("")
            return Item(index, row["id"], prompt, row["has_picture"], row["ref"])

    @contextmanager
    def _name_damage(self, what: str) -> Iterator[None]:
        try:
            yield
        except (ValueError, TypeError, KeyError, AttributeError, UserError) as error:
            raise UserError(
                f"{self.path} is damaged: {what} cannot be read ({one_line(error)}). Restore the file, or choose another out=."
            ) from error

    def _transaction(self) -> "_Transaction":
        return _Transaction(self._db)


class _Transaction:
    """A transaction that commits at its end, and rolls back on an error."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __enter__(self) -> None:
        self.db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.db.execute("COMMIT")
        elif self.db.in_transaction:  # SQLite rolls back by itself when the disk is full
            self.db.execute("ROLLBACK")


def _item_text(item: Item) -> str:
    prompt = row_of(item.prompt) if item.prompt.text else {}
    return json.dumps({"id": item.id, "prompt": prompt, "has_picture": item.has_picture, "ref": item.ref})
