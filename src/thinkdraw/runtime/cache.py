"""What judges said, by the content that they were asked about, in one SQLite file that several processes may share.

A key is the judge's name, its revision (settings and weights) and a hash of everything that it was shown, so that
another judge, another checkpoint or another picture never finds this one's answer.
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
    """JSON values by (judge, revision, content), on disk when `put` returns; the oldest leave first.

    Each has a digest: one that is not what was put is left out, and said, so that it is asked for again.

    max_answers: how many are kept; 0.2 to 0.4 kB each. Machines share it where their disk keeps locks, as NFS 4 does.
    Raises UserError for a file that is no such cache, or cannot be written.
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
        """The answers that are there, by content."""
        found: JsonObject = {}
        num_damaged = 0
        with self._transaction("DEFERRED") as connection:
            for begin in range(0, len(contents), _VARIABLES):
                some = contents[begin : begin + _VARIABLES]
                marks = ",".join("?" * len(some))
                where = f"WHERE judge = ? AND revision = ? AND content IN ({marks})"
                query = f"SELECT content, answer, digest FROM answers {where}"
                for content, text, digest in connection.execute(query, (judge, revision, *some)):
                    if digest == _digest(judge, revision, content, text):
                        found[content] = json.loads(text)
                    else:
                        num_damaged += 1
        if num_damaged:
            warnings.warn(
                f"cache {self.path}: {num_damaged} answers are not what was written; they are asked for again. "
                "Check that disk.",
                stacklevel=2,
            )
        return found

    def put(self, judge: str, revision: str, answers: JsonMapping) -> None:
        """Keep the answers; one that is there already is replaced, and counts as new."""
        texts = {content: json.dumps(answer, allow_nan=False) for content, answer in answers.items()}
        rows = [(judge, revision, c, text, _digest(judge, revision, c, text)) for c, text in texts.items()]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO answers (judge, revision, content, answer, digest) VALUES (?, ?, ?, ?, ?)", rows
            )
            # Numbers rise with age, and gaps make this leave a few more out than it must: no counting of a large table.
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
                    with suppress(sqlite3.Error):  # a full disk has undone it already
                        connection.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError) as error:
                raise sqlite_problem(f"cache {self.path}", error, "verdicts") from error

    def _add_digests(self, connection: sqlite3.Connection) -> None:
        """Give digests to the answers of a file from before there were any; they are taken as they are."""
        if "digest" not in [row[1] for row in connection.execute("PRAGMA table_info(answers)")]:
            warnings.warn(f"cache {self.path} was written without digests; its answers get them now.", stacklevel=4)
            connection.execute("ALTER TABLE answers ADD COLUMN digest TEXT")
            connection.create_function("answer_digest", 4, _digest, deterministic=True)
            connection.execute("UPDATE answers SET digest = answer_digest(judge, revision, content, answer)")

    def _connection(self) -> sqlite3.Connection:
        """This process's own: a connection that came through a fork would damage the file."""
        if self._opened is None or self._opened[0] != os.getpid():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._opened = (os.getpid(), connection)
        return self._opened[1]


def _digest(*parts: object) -> str:
    """The first 64 bits of the SHA-256 of a key and its answer."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:16]
