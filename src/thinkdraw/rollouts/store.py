"""A folder of rollouts that only grows.

Its files are `store.json`, `shards/000000.parquet` …, and `scores/<judge>/000000.parquet` ….
One `append` writes one shard. Reading goes shard by shard, so memory does not grow with the store.
Two writers at once are safe: an atomic link takes a shard's name, and the slower writer takes the next number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.rollouts import rows
from thinkdraw.rollouts.files import DamagedError
from thinkdraw.rollouts.footer import Footer
from thinkdraw.rollouts.header import FORMAT, Codec, Header
from thinkdraw.rollouts.scores import Judge, ScoreColumn, check_scores
from thinkdraw.rollouts.shards import Shards, StoredShard
from thinkdraw.rollouts.summary import summary
from thinkdraw.runtime.formats import name_file_in_errors
from thinkdraw.runtime.formats.sealed import read_sealed, write_sealed
from thinkdraw.types import Policy, Rollouts, ThoughtFormat


@dataclass(frozen=True)
class StoredGroups:
    """Whole groups of one shard, with their scores.

    scores: (B,) float32, NaN = no verdict.
    row_ids: the rows' numbers in the store.
    """

    rollouts: Rollouts
    scores: Tensor
    row_ids: range


class RolloutStore:
    """A store of rollouts. Make one with `create`, or `open` one."""

    def __init__(self, path: Path, header: Header) -> None:
        self.path, self.header = path, header
        self._shards = Shards(path / "shards")
        self._last_read: StoredShard | None = None

    @classmethod
    def create(cls, path: Path | str, policy: Policy, thought: ThoughtFormat) -> "RolloutStore":
        """Create an empty store for rollouts of one thought format.

        Policies with the same tokenizer and codes as `policy` may share it.
        Raises UserError if `path` holds a store already.
        """
        path = Path(path)
        if (path / "store.json").exists():
            raise UserError(f"{path} holds a rollout store already. Open that one, or choose another folder.")
        header = Header(codec=Codec.of(policy), thought=thought, precision=policy.precision)
        if header.codec.num_codes > 1 << 16:
            raise UserError(f"the policy has {header.codec.num_codes} codes; a store holds up to 65,536, as uint16.")
        write_sealed(path / "store.json", header.model_dump(mode="json"))
        return cls(path, header)

    @classmethod
    def open(cls, path: Path | str) -> "RolloutStore":
        """Open a store.

        Raises UserError if there is none, or one in a format that this version does not read.
        """
        path = Path(path)
        file = path / "store.json"
        if not file.exists():
            raise UserError(f"{path} holds no rollout store (store.json is missing). `thinkdraw sample` makes one.")
        way_out = "It was edited or damaged: restore it."
        header = read_sealed(file, way_out, DamagedError)
        if (stored_format := header.get("format", FORMAT)) != FORMAT:
            raise UserError(
                f"{path} has store format {stored_format}, and this version reads {FORMAT}. Use the version that wrote it."
            )
        with name_file_in_errors(file, way_out, DamagedError):
            return cls(path, Header.model_validate(header))

    # Writing

    def append(
        self, rollouts: Rollouts, scores: Mapping[str, Tensor] | None = None, policy_path: str = "", *,
        components: Mapping[str, Mapping[str, Tensor]] | None = None, at_group: int | None = None,
    ) -> int:  # fmt: skip
        """Write whole groups as one shard, then their scores; return the shard's index.

        Pictures are not written, since they follow from the tokens.
        scores: judge → (B,), NaN = no verdict. components: judge → part → (B,).
        at_group: refuse unless the store holds exactly so many groups. A writer that resumes passes it.
        A process killed in between leaves a shard without scores, and never half a shard.
        Raises UserError for rollouts of another thought format or other codes, and for a disk that refuses.
        """
        self._check_fit(rollouts)
        for name, values in (scores or {}).items():
            check_scores(name, len(rollouts), values, (components or {}).get(name))
        table, footer = rows.to_table(rollouts, self.header.codec.pad_id, policy_path)
        index = self._shards.add(table, footer, at_group)
        for name, values in (scores or {}).items():
            column = self.column(name) if name in self.judges else self.add_judge(name, Judge(reward=name))
            column.write(index, self._shards.footer(index), values, (components or {}).get(name))
        return index

    def _check_fit(self, rollouts: Rollouts) -> None:
        """Raise UserError for rollouts that this store cannot hold."""
        if not len(rollouts):
            raise ValueError("no rollouts to append.")
        if rollouts.sampling.thought != self.header.thought:
            raise UserError(
                f"rollouts with thought={rollouts.sampling.thought} do not fit into {self.path}, which holds "
                f"thought={self.header.thought}. Use a store for each."
            )
        codec, sizes = self.header.codec, rollouts.in_last_picture().sum(1)
        highest = int((rollouts.tokens * rollouts.is_image).max())
        # A row that describes its segments may have stopped within its picture.
        is_whole = sizes <= codec.num_image_tokens if rollouts.segments else sizes == codec.num_image_tokens
        if not bool(is_whole.all()) or highest >= codec.num_codes:
            raise UserError(
                f"pictures of {int(sizes.max())} tokens up to {highest} do not fit into {self.path}, which holds "
                f"{codec.num_image_tokens} tokens of {codec.num_codes} codes. Use another store."
            )

    def drop_after(self, num_shards: int) -> None:
        """Remove all but the first `num_shards` shards, with their scores.

        A run does this when it goes back to an earlier checkpoint. The newest shard goes first, so that a process
        killed in between leaves a store without a gap.
        """
        for index in reversed(range(num_shards, self.num_shards)):
            for name in self.judges:
                self.column(name).drop(index)
            self._shards.drop(index)
        self._last_read = None

    def add_judge(self, name: str, judge: Judge) -> ScoreColumn:
        """Return the column of scores called `name`, new or existing.

        Raises UserError if that name belongs to another judge.
        """
        column = self.column(name)
        column.declare(judge)
        return column

    # Reading

    def __len__(self) -> int:
        return self._shards.end()[1]

    @property
    def num_groups(self) -> int:
        """Groups in the store."""
        return self._shards.end()[2]

    @property
    def num_shards(self) -> int:
        """Shards up to the newest, damaged and missing ones included."""
        return len(self._shards)

    def read_shard(self, index: int) -> StoredShard:
        """Read one shard and check its digest. Raises DamagedError."""
        return self._shards.read(index)

    def shards(self, *, skip_damaged: bool = False) -> Iterator[StoredShard]:
        """Yield the shards in order, with one in memory at a time."""
        for index, _ in self.footers(skip_damaged=skip_damaged):
            try:
                shard = self.read_shard(index)
            except DamagedError:
                if not skip_damaged:
                    raise
                continue
            yield shard

    def footers(self, *, skip_damaged: bool = False) -> Iterator[tuple[int, Footer]]:
        """Yield the index and footer of each shard, without reading its rows."""
        return self._shards.footers(skip_damaged)

    def describes_segments(self) -> bool:
        """Whether a shard holds rollouts that describe their segments."""
        return any(self._shards.describes_segments(index) for index in range(self.num_shards))

    def readable_shards(self) -> list[int]:
        """List the shards that are intact; reads all of them."""
        return [shard.index for shard in self.shards(skip_damaged=True)]

    def row(self, row: int) -> Rollouts:
        """Read one rollout. Raises UserError for a row that no readable shard has."""
        if self._last_read is None or row not in self._last_read.row_ids:
            self._last_read = self.read_shard(self._shards.find(row))
        return self._last_read.rollouts().select([row - self._last_read.footer.first_row])

    def pair(self, first: int, second: int) -> tuple[Rollouts, Rollouts]:
        """Read two rollouts of one prompt.

        Raises UserError if their prompts differ, or if they are the same row.
        """
        if first == second:
            raise UserError(f"row {first} cannot be a pair with itself. Choose another row of its group.")
        pair = self.row(first), self.row(second)
        texts = [rollouts.prompts[0].text for rollouts in pair]
        if texts[0] != texts[1]:
            raise UserError(
                f"row {first} draws {texts[0][:60]!r} and row {second} {texts[1][:60]!r}: a pair compares two pictures "
                "of one prompt. Choose rows of one group."
            )
        return pair

    def iter_groups(self, judge: str, batch: int = 32, *, skip_damaged: bool = False) -> Iterator[StoredGroups]:
        """Yield `batch` groups at a time with their scores, in order.

        The last batch of a shard may be smaller.
        Raises UserError for groups of one rollout, and for rows without scores of `judge`.
        """
        column = self._existing_column(judge)
        for shard in self.shards(skip_damaged=skip_damaged):
            footer, size = shard.footer, shard.footer.group_size
            where = f"row {footer.first_row}: shard {shard.index:06d}"
            if size < 2:
                raise UserError(f"{where} has groups of one rollout. Sample with a group_size of at least 2.")
            scores = column.read(shard.index, footer)
            if scores is None:
                raise UserError(f"{where} has no scores of {judge}. Run `thinkdraw score` again; it goes on there.")
            rollouts, first = shard.rollouts(), footer.first_row
            for begin in range(0, len(rollouts), batch * size):
                part = range(begin, min(begin + batch * size, len(rollouts)))
                values = torch.as_tensor(scores[part.start : part.stop])
                yield StoredGroups(
                    rollouts.select(part, size), values, range(first + part.start, first + part.stop)
                )  # fmt: skip

    # Scores

    @property
    def judges(self) -> list[str]:
        """Names of the judges whose scores the store holds."""
        return sorted(path.parent.name for path in (self.path / "scores").glob("*/judge.json"))

    def column(self, judge: str) -> ScoreColumn:
        """Return a judge's column of scores, whether or not it exists."""
        return ScoreColumn(self.path / "scores", judge)

    def scores(self, judge: str, *, skip_damaged: bool = False) -> np.ndarray:
        """Read a judge's scores, (rows,) float32.

        NaN where it gave no verdict, or has not judged the row yet: see `scored_mask`.
        """
        return self._scores(judge, skip_damaged)[0]

    def scored_mask(self, judge: str, *, skip_damaged: bool = False) -> np.ndarray:
        """Mark the rows (rows,) bool that a judge has judged, with or without a verdict."""
        return self._scores(judge, skip_damaged)[1]

    def _scores(self, judge: str, skip_damaged: bool) -> tuple[np.ndarray, np.ndarray]:
        """Read a judge's scores, and the mask of the rows it has judged."""
        column = self._existing_column(judge)
        footers = list(self.footers(skip_damaged=skip_damaged))
        size = footers[-1][1].end_row if footers else 0
        scores, scored = np.full(size, np.nan, np.float32), np.zeros(size, bool)
        for index, footer in footers:
            try:
                values = column.read(index, footer)
            except DamagedError:
                if not skip_damaged:
                    raise
                continue
            if values is not None:
                scores[footer.first_row : footer.end_row] = values
                scored[footer.first_row : footer.end_row] = True
        return scores, scored

    def _existing_column(self, judge: str) -> ScoreColumn:
        """Return the column of a judge whose scores exist. Raises UserError."""
        if judge not in self.judges:
            known = ", ".join(self.judges) or "none yet"
            raise UserError(f"{self.path} has no scores of {judge}; it has {known}. Run `thinkdraw score`.")
        return self.column(judge)

    # Fit

    def check_policy(self, policy: Policy) -> None:
        """Raise UserError unless the policy shares the store's tokenizer and codes."""
        mine, its = self.header.codec.model_dump(), Codec.of(policy).model_dump()
        if differing := [name for name in mine if mine[name] != its[name]]:
            there, here = (", ".join(f"{n}={str(c[n])[:12]}" for n in differing) for c in (mine, its))
            raise UserError(
                f"the rows of {self.path}, row 0 to the last, have tokens of another policy: {there} there, {here} in this one. "
                "Sample a store from this policy, or from the checkpoint that it was trained from."
            )

    def check_revision(self, revision: str) -> None:
        """Raise UserError unless the policy of this revision sampled every row."""
        for index, footer in self.footers():
            if footer.revision != revision:
                raise UserError(
                    f"row {footer.first_row}: rows {footer.first_row} to {footer.end_row - 1} (shard {index:06d}) are of "
                    f"revision {footer.revision}, not {revision}. Sample them again, or learn off-policy."
                )

    def info(self) -> dict[str, Any]:
        """Count rows, judges, revisions and bytes, and hash the content: see `summary.py`."""
        footers = list(self.footers(skip_damaged=True))
        columns = [self.column(name) for name in self.judges]
        return summary(self.path, self.header, footers, self.num_shards, columns)
