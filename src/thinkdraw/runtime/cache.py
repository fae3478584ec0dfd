"""What judges said, by the content that they were asked about, in one SQLite file that several processes may share.

A key is the judge's name, its revision (settings and weights) and a hash of everything that it was shown, so that
another judge, another checkpoint or another picture never finds this one's answer.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.runtime.json_types import JsonMapping, JsonObject

_TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    number INTEGER PRIMARY KEY,
    judge TEXT NOT NULL, revision TEXT NOT NULL, content TEXT NOT NULL,
    answer TEXT NOT NULL,
    UNIQUE (judge, revision, content)
)
"""
_VARIABLES = 500  # content hashes per query; SQLite's default limit is 999 at the least
_BUSY_S = 60


class AnswerCache:
    """JSON values by (judge, revision, content), on disk when `put` returns; the oldest leave first.

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

    def get(self, judge: str, revision: str, contents: Sequence[str]) -> JsonObject:
        """The answers that are there, by content."""
        found: JsonObject = {}
        with self._transaction("DEFERRED") as connection:
            for begin in range(0, len(contents), _VARIABLES):
                some = contents[begin : begin + _VARIABLES]
                marks = ",".join("?" * len(some))
                query = f"SELECT content, answer FROM answers WHERE judge = ? AND revision = ? AND content IN ({marks})"
                found |= {
                    content: json.loads(text) for content, text in connection.execute(query, (judge, revision, *some))
                }
        return found

    def put(self, judge: str, revision: str, answers: JsonMapping) -> None:
        """Keep the answers; one that is there already is replaced, and counts as new."""
        rows = [(judge, revision, content, json.dumps(answer, allow_nan=False)) for content, answer in answers.items()]
        with self._transaction() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO answers (judge, revision, content, answer) VALUES (?, ?, ?, ?)", rows
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
                    connection.execute("ROLLBACK")
                    raise
            except (sqlite3.Error, OSError) as error:
                raise UserError(
                    f"cache {self.path} cannot be used ({error}). Remove that file, or choose another path on a local disk."
                ) from error

    def _connection(self) -> sqlite3.Connection:
        """This process's own: a connection that came through a fork would damage the file."""
        if self._opened is None or self._opened[0] != os.getpid():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            connection.execute("PRAGMA journal_mode = TRUNCATE")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._opened = (os.getpid(), connection)
        return self._opened[1]
