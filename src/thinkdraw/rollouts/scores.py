"""Scores of a store's rows: files beside the shards, one folder per judge.

Adding a judge rewrites no rollout.
"""

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import Field
from torch import Tensor

from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError
from thinkdraw.rollouts import arrow
from thinkdraw.rollouts.files import DamagedError, NameTakenError, write_new
from thinkdraw.rollouts.footer import Footer
from thinkdraw.runtime.endpoints import drop_connection_settings
from thinkdraw.runtime.formats import name_file_in_errors
from thinkdraw.runtime.formats.sealed import read_sealed, write_sealed

logger = logging.getLogger(__name__)
KEY = b"thinkdraw-sha256"
SCHEMA = {"row": "int64", "score": "float", "components": "string"}


class Judge(StrictModel):
    """The reward that made a column of scores, with its settings.

    revision: of a model behind the reward, where known.
    """

    reward: str = Field(description="Name of the reward that gave these scores.")
    settings: dict[str, Any] = Field(default={}, description="What the reward was made with.")
    revision: str | None = Field(
        default=None, description="Digest of all that the verdicts follow from, weights among them; null where unknown."
    )

    @property
    def without_addresses(self) -> "Judge":
        """The judge without network addresses, on which no score depends."""
        return self.model_copy(update={"settings": drop_connection_settings(self.settings)})


@dataclass(frozen=True)
class ScoreColumn:
    """The folder `scores/<name>/`: judge.json, and a file per shard.

    A score is null where the judge gave no verdict.
    """

    root: Path  # `scores/`
    name: str

    @property
    def folder(self) -> Path:
        """The column's folder."""
        return self.root / self.name

    @property
    def judge(self) -> Judge:
        """The judge in judge.json. Raises DamagedError."""
        path = self.folder / "judge.json"
        way_out = f"Restore it, or remove {self.folder} and score again."
        content = read_sealed(path, way_out, DamagedError)
        with name_file_in_errors(path, way_out, DamagedError):
            return Judge.model_validate(content)

    def declare(self, judge: Judge) -> None:
        """Write judge.json, or check that it names the same judge.

        Raises UserError for a name that cannot be a file name, or that belongs to another judge.
        """
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.name):
            raise UserError(f"score column {self.name!r}: use letters, digits, dot, dash and underscore only.")
        judge = Judge.model_validate_json(judge.model_dump_json())
        if not (self.folder / "judge.json").exists():
            write_sealed(self.folder / "judge.json", judge.model_dump(mode="json"))
        elif (former := self.judge).without_addresses == (now := judge.without_addresses):
            return
        elif former.without_addresses == now.model_copy(update={"revision": None}):
            # A former version did not record revisions of this kind of judge.
            logger.warning(
                "scores %s lack the revision of the weights or code that made them: this judge's is recorded now",
                self.name,
            )
            write_sealed(self.folder / "judge.json", judge.model_dump(mode="json"))
        else:
            raise UserError(
                f"scores {self.name!r} are of {_line(former)}, not of {_line(judge)}. Give these scores another name."
            )

    def drop(self, shard: int) -> None:
        """Remove the scores of a shard."""
        self._path(shard).unlink(missing_ok=True)

    def has(self, shard: int) -> bool:
        """Whether the scores of a shard exist, readable or not."""
        return os.path.lexists(self._path(shard))  # True for a broken link too, so that reading it reports the damage

    def write(self, shard: int, footer: Footer, scores: Tensor, components: Mapping[str, Tensor] | None = None) -> None:
        """Write the scores of a shard's rows.

        scores, and each component: (B,); NaN = no verdict. Raises UserError if these rows have scores already.
        """
        check_scores(self.name, footer.num_rows, scores, components)
        rows = np.arange(footer.first_row, footer.end_row)
        parts = {name: _numbers(values) for name, values in (components or {}).items()}
        texts = [json.dumps({name: values[i] for name, values in parts.items()}) for i in range(footer.num_rows)]
        columns = {"row": rows, "score": _numbers(scores), "components": texts}
        try:
            table = arrow.table(columns, SCHEMA)
            write_new(self._path(shard), arrow.with_metadata(table, {KEY: _digest(table)}))
        except NameTakenError:
            raise UserError(
                f"row {footer.first_row}: {self._path(shard)} exists already, and rows are scored once. "
                "Remove that file to score them again."
            ) from None

    def read(self, shard: int, footer: Footer) -> np.ndarray | None:
        """Read the scores of a shard's rows, (B,) float32; NaN = no verdict.

        Returns None if they have no scores yet. Raises DamagedError.
        """
        table = self.table(shard, footer)
        return None if table is None else table["score"].to_numpy().astype(np.float32)

    def table(self, shard: int, footer: Footer) -> arrow.Table | None:
        """Read the scores of a shard's rows with their components; None if there are none.

        Raises DamagedError.
        """
        if not self.has(shard):
            return None
        path = self._path(shard)
        try:
            table = arrow.read_table(path)
            matches = np.array_equal(table["row"].to_numpy(), np.arange(footer.first_row, footer.end_row))
            stored = arrow.read_metadata(path).get(KEY)
            if stored is not None and stored.decode() != _digest(table):  # files of older versions have none
                raise ValueError("their digest does not match what was written")
            if np.isinf(np.asarray(table["score"].to_numpy(), np.float64)).any():
                raise ValueError("a score is infinite")
        except (*arrow.ERRORS, KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(
                f"scores {path} of rows {footer.first_row} to {footer.end_row - 1} are damaged "
                f"({' '.join(str(error).split())[:160]}). Remove that file and score again."
            ) from error
        if not matches:
            raise DamagedError(f"scores {path} belong to other rows. Remove that file and score again.")
        return table

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.parquet"


def _digest(table: arrow.Table) -> str:
    """Hash (SHA-256) the values of a table, independent of the file format."""
    content = hashlib.sha256()
    for name in SCHEMA:
        content.update(json.dumps(table[name].to_pylist()).encode())
    return content.hexdigest()


def check_scores(name: str, num_rows: int, scores: Tensor, components: Mapping[str, Tensor] | None) -> None:
    """Raise ValueError unless there is one number per rollout, in every component too."""
    for what, values in {name: scores, **(components or {})}.items():
        if values.shape != (num_rows,):
            raise ValueError(f"scores {what}: expected a tensor of {num_rows} numbers, one per rollout.")


def _numbers(values: Tensor) -> list[float | None]:
    """Convert to a list, with None for numbers that are not finite."""
    numbers = cast(list[float], values.detach().float().cpu().numpy().tolist())
    return [number if math.isfinite(number) else None for number in numbers]


def _line(judge: Judge) -> str:
    """Describe a judge in one line, for messages."""
    settings = ", ".join(f"{k}={v}" for k, v in judge.settings.items())
    return f"{judge.reward}({settings})" + (f" of revision {judge.revision}" if judge.revision else "")
