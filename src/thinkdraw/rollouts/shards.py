"""The numbered parquet files of a store.

Each is written once and as a whole, and checked against its digest whenever it is read.
"""

import bisect
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.rollouts import arrow, rows
from thinkdraw.rollouts.files import DamagedError, NameTakenError, write_new
from thinkdraw.rollouts.footer import Footer
from thinkdraw.types import Rollouts

FOOTER_ERRORS = (*arrow.ERRORS, KeyError, TypeError, ValueError)
MAX_MISSING = 10_000  # shards; beyond it, the highest number belongs to a file that only looks like a shard


@dataclass(frozen=True)
class StoredShard:
    """A shard in memory."""

    index: int
    footer: Footer
    table: arrow.Table

    @property
    def row_ids(self) -> range:
        """Its rows' numbers in the store."""
        return range(self.footer.first_row, self.footer.end_row)

    def rollouts(self) -> Rollouts:
        """Convert the rows to rollouts, on the CPU and without pictures.

        `policy.decode_tokens(rollouts.image_tokens())` gives the pictures.
        """
        return rows.to_rollouts(self.table, self.footer)


@dataclass(frozen=True)
class Shards:
    """The folder `shards/`. Only one shard is in memory at a time."""

    folder: Path

    def __len__(self) -> int:
        """Count shards up to the newest, damaged and missing ones included.

        A file with another kind of name is no shard.
        Raises DamagedError for a number far beyond the shards that exist.
        """
        numbers = [int(p.stem) for p in self.folder.glob("[0-9]*.parquet") if re.fullmatch("[0-9]{6,9}", p.stem)]
        if (end := max(numbers, default=-1) + 1) > len(numbers) + MAX_MISSING:
            raise DamagedError(
                f"{self._path(end - 1)} has only {len(numbers) - 1} shards beside it: {end - len(numbers):,} would be "
                "missing. It belongs to another store: move it away."
            )
        return end

    def end(self) -> tuple[int, int, int]:
        """Return index, first row and first group of the next shard.

        Raises DamagedError if the newest shard is damaged.
        """
        index = len(self)
        if index == 0:
            return 0, 0, 0
        footer = self.footer(index - 1)
        return index, footer.end_row, footer.end_group

    def add(self, table: arrow.Table, footer: Footer, at_group: int | None = None) -> int:
        """Write the rows of `rows.to_table` as the next shard and return its index.

        at_group: see `RolloutStore.append`.
        """
        while True:
            index, first_row, first_group = self.end()
            if at_group not in (None, first_group):
                raise UserError(
                    f"{self.folder.parent} holds {first_group} groups where {at_group} were expected: another process "
                    "writes to it. Stop one of the two; the store is intact."
                )
            with suppress(NameTakenError):
                write_new(self._path(index), rows.with_position(table, footer, first_row, first_group))
                return index

    def drop(self, index: int) -> None:
        """Remove a shard."""
        self._path(index).unlink(missing_ok=True)

    def footer(self, index: int) -> Footer:
        """Read a shard's footer. Raises DamagedError."""
        footer, begin = self._read_footer(index), self._end_before(index)
        if begin is not None and footer.first_row != begin:
            raise self._damaged(index, f"its footer states first row {footer.first_row}: it was copied or renamed")
        return footer

    def _read_footer(self, index: int) -> Footer:
        try:
            return Footer.of(arrow.read_metadata(self._path(index)))
        except FOOTER_ERRORS as error:
            raise self._damaged(index, error) from error

    def _end_before(self, index: int) -> int | None:
        """Return the row that a shard begins with, by the footer of the shard before it.

        None where that footer cannot be read or contradicts its own predecessor: then it may have been copied or
        renamed itself, and proves nothing.
        """
        if not index:
            return 0
        before, last = self._known_footer(index - 1), self._known_footer(index - 2)
        if before is None or before.first_row != (last.end_row if last else before.first_row if index > 1 else 0):
            return None
        return before.end_row

    def _known_footer(self, index: int) -> Footer | None:
        try:
            return Footer.of(arrow.read_metadata(self._path(index))) if index >= 0 else None
        except FOOTER_ERRORS:
            return None

    def footers(self, skip_damaged: bool = False) -> Iterator[tuple[int, Footer]]:
        """Yield the index and footer of each shard, in order.

        Raises DamagedError for a shard that is damaged, or repeats rows of an earlier one, unless skip_damaged.
        """
        end = 0
        for index in range(len(self)):
            try:
                footer = self.footer(index)
                if footer.first_row < end:
                    raise self._damaged(index, f"its row {footer.first_row} is also in an earlier shard")
            except DamagedError:
                if not skip_damaged:
                    raise
                continue
            end = footer.end_row
            yield index, footer

    def describes_segments(self, index: int) -> bool:
        """Whether a shard has the columns `rows.SEGMENTS`; False for a damaged one."""
        try:
            return rows.SEGMENTS.keys() <= set(arrow.read_names(self._path(index)))
        except arrow.ERRORS:
            return False

    def read(self, index: int) -> StoredShard:
        """Read a shard and check its digest. Raises DamagedError."""
        footer = self.footer(index)
        try:
            table = arrow.read_table(self._path(index))
            is_whole = rows.digest(table, footer) == footer.digest
        except (*arrow.ERRORS, KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._damaged(index, error) from error
        if not is_whole:
            raise self._damaged(index, "its content differs from what was written")
        return StoredShard(index, footer, table)

    def find(self, row: int) -> int:
        """Find the shard that holds a row.

        Raises UserError for a row that no readable shard has.
        """
        index = bisect.bisect_right(range(len(self)), row, key=self._first_row) - 1
        if index < 0 or row >= self.footer(index).end_row:
            store = self.folder.parent
            raise UserError(
                f"row {row} is in no readable shard of {store}. `thinkdraw store info {store}` counts them."
            )
        return index

    def _first_row(self, index: int) -> float:
        """Return the first row of a shard, or of the next readable one."""
        while index < len(self):
            with suppress(DamagedError):
                return self.footer(index).first_row
            index += 1
        return math.inf

    def _damaged(self, index: int, reason: object) -> DamagedError:
        """Make the error about a damaged shard, with its rows and the way out."""
        path = self._path(index)
        why = " ".join(str(reason).split())[:160] if path.exists() else "the file is missing"
        first = self._end_before(index)
        where = "rows unknown" if first is None else f"row {first} and on"
        return DamagedError(
            f"{path} is damaged, {where}: {why}. Restore that file; skip_damaged=True reads the other shards."
        )

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.parquet"
