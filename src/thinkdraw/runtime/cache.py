"""Judges' answers by the content they were about, in one SQLite file.

Several processes may share the file. A key is the judge's name, its revision (settings and weights) and a hash of everything that
the judge was shown. So another judge, another checkpoint or another picture never gets this one's answer.
"""

import hashlib
import json
import os
import sqlite3
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.runtime.formats import sqlite_problem
from thinkdraw.runtime.json_types import JsonMapping, JsonObject

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY,
    judge TEXT NOT NULL, revision TEXT NOT NULL, content TEXT NOT NULL,
    answer TEXT NOT NULL, digest TEXT,
    UNIQUE (judge, revision, content)
)
"""
_VARIABLES = 500  # content hashes per query; SQLite's default limit is 999 at the least
_BUSY_S = 60


class AnswerCache:
    """JSON values by (judge, revision, content), on disk when `put` returns.

    Each value has a digest. A value that does not match its digest is left out with a warning, so that the judge is asked again.

    max_answers: how many are kept, the newest; each takes 0.2 to 0.4 kB. Machines may share the file where their disk keeps locks, as
    NFS 4 does. Raises UserError for a file that is no such cache, or that cannot be written.
    """

    def __init__(self, path: Path | str, max_answers: int = 1_000_000):
        if max_answers < 1:
            raise UserError(f"cache {path}: max_answers={max_answers} must be at least 1. Leave the cache out instead.")
        self.path, self.max_answers = Path(path), max_answers
        self._lock = threading.Lock()
        self._opened: tuple[int, sqlite3.Connection] | None = None
        with self._transaction() as connection:
            connection.execute(_TABLE)
            self._add_digests(connection)

    def get(self, judge: str, revision: str, contents: Sequence[str]) -> JsonObject:
        """Look answers up by content; contents without an answer are left out."""
        answers: JsonObject = {}
        num_damaged = 0
        with self._transaction("DEFERRED") as connection:
            for begin in range(0, len(contents), _VARIABLES):
                batch = contents[begin : begin + _VARIABLES]
                marks = ",".join("?" * len(batch))
                where = f"WHERE judge = ? AND revision = ? AND content IN ({marks})"
                query = f"SELECT content, answer, digest FROM answers {where}"
                for content, text, digest in connection.execute(query, (judge, revision, *batch)):
                    if digest == _digest(judge, revision, content, text):
                        answers[content] = json.loads(text)
                    else:
                        num_damaged += 1
        if num_damaged:
            warnings.warn(
                f"cache {self.path}: {num_damaged} answers are not what was written, and the judge is asked again. "
                "Check that disk.",
                stacklevel=2,
            )
        return answers

    def put(self, judge: str, revision: str, answers: JsonMapping) -> None:
        """Store answers; one that is there already is replaced and counts as new."""
        texts = {content: json.dumps(answer, allow_nan=False) for content, answer in answers.items()}
        rows = [(judge, revision, c, text, _digest(judge, revision, c, text)) for c, text in texts.items()]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO answers (judge, revision, content, answer, digest) VALUES (?, ?, ?, ?, ?)", rows
            )
            # By number and not by count, because counting a large table is slow. Replaced answers leave gaps in the numbers,
            # so this may delete a few more than it must.
            connection.execute(
                "DELETE FROM answers WHERE number <= (SELECT MAX(number) FROM answers) - ?", (self.max_answers,)
            )

    def __len__(self) -> int:
        with self._transaction("DEFERRED") as connection:
            return connection.execute("SELECT COUNT(*) FROM answers").fetchone()[0]

    def close(self) -> None:
        with self._lock:
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[1].close()
            self._opened = None

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                connection = self._connection()
                connection.execute(f"BEGIN {kind}")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):  # on a full disk SQLite has rolled back already
                        connection.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError) as error:
                raise sqlite_problem(f"cache {self.path}", error, "verdicts") from error

    def _add_digests(self, connection: sqlite3.Connection) -> None:
        """Give digests to answers of an older file; their values are trusted as they are."""
        if "digest" not in [row[1] for row in connection.execute("PRAGMA table_info(answers)")]:
            warnings.warn(f"cache {self.path} was written without digests; its answers get them now.", stacklevel=4)
            connection.execute("ALTER TABLE answers ADD COLUMN digest TEXT")
            connection.create_function("answer_digest", 4, _digest, deterministic=True)
            connection.execute("UPDATE answers SET digest = answer_digest(judge, revision, content, answer)")

    def _connection(self) -> sqlite3.Connection:
        """Open this process's own connection: one inherited by a fork damages the file."""
        if self._opened is None or self._opened[0] != os.getpid():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            # Not WAL: its shared memory does not work over a network file system.
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._opened = (os.getpid(), connection)
        return self._opened[1]


def _digest(*parts: object) -> str:
    """Return the first 64 bits of the SHA-256 of a key and its answer."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]
