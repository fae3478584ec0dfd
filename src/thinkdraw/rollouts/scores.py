"""What judges said about a store's rows: files beside the shards, so that adding a judge rewrites no rollout."""

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
from thinkdraw.rollouts.files import DamagedError, TakenError, write_new
from thinkdraw.rollouts.footer import Footer
from thinkdraw.runtime.endpoints import drop_connection_settings
from thinkdraw.runtime.formats import name_file_in_errors
from thinkdraw.runtime.formats.sealed import read_sealed, write_sealed

logger = logging.getLogger(__name__)
KEY = b"thinkdraw-sha256"
SCHEMA = {"row": "int64", "score": "float", "components": "string"}


class Judge(StrictModel):
    """Which reward a column of scores is of, made with which settings; revision: of a model behind it, where known."""

    reward: str = Field(description="Name of the reward that gave these scores.")
    settings: dict[str, Any] = Field(default={}, description="What the reward was made with.")
    revision: str | None = Field(
        default=None, description="Digest of all that the verdicts follow from, weights among them; null where unknown."
    )

    @property
    def without_addresses(self) -> "Judge":
        """What the scores follow from: a served judge may move."""
        return self.model_copy(update={"settings": drop_connection_settings(self.settings)})


@dataclass(frozen=True)
class ScoreColumn:
    """`scores/<name>/`: judge.json, and a file per shard. A score is null where the judge had no verdict."""

    root: Path  # `scores/`
    name: str

    @property
    def folder(self) -> Path:
        return self.root / self.name

    @property
    def judge(self) -> Judge:
        path = self.folder / "judge.json"
        way_out = f"Restore it, or remove {self.folder} and score again."
        found = read_sealed(path, way_out, DamagedError)
        with name_file_in_errors(path, way_out, DamagedError):
            return Judge.model_validate(found)

    def declare(self, judge: Judge) -> None:
        """Write judge.json. Raises UserError for a name that is no file name, or that stands for another judge."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", self.name):
            raise UserError(f"score column {self.name!r}: use letters, digits, dot, dash and underscore only.")
        judge = Judge.model_validate_json(judge.model_dump_json())
        if not (self.folder / "judge.json").exists():
            write_sealed(self.folder / "judge.json", judge.model_dump(mode="json"))
        elif (there := self.judge).without_addresses == (now := judge.without_addresses):
            return
        elif there.without_addresses == now.model_copy(update={"revision": None}):
            # Of a version that did not note what such a judge was made of.
            logger.warning(
                "scores %s do not say which weights or code made them: this judge's are noted now", self.name
            )
            write_sealed(self.folder / "judge.json", judge.model_dump(mode="json"))
        else:
            raise UserError(
                f"scores {self.name!r} are of {_line(there)}, not of {_line(judge)}. Give these scores another name."
            )

    def drop(self, shard: int) -> None:
        self._path(shard).unlink(missing_ok=True)

    def has(self, shard: int) -> bool:
        return os.path.lexists(self._path(shard))  # also a link that leads nowhere: reading it says so

    def write(self, shard: int, footer: Footer, scores: Tensor, components: Mapping[str, Tensor] | None = None) -> None:
        """scores and each component: (B,) for the rows of the shard; NaN is no verdict.

        Raises UserError if these rows are scored already.
        """
        check_scores(self.name, footer.num_rows, scores, components)
        rows = np.arange(footer.first_row, footer.end_row)
        parts = {name: _numbers(values) for name, values in (components or {}).items()}
        texts = [json.dumps({name: values[i] for name, values in parts.items()}) for i in range(footer.num_rows)]
        columns = {"row": rows, "score": _numbers(scores), "components": texts}
        try:
            table = arrow.table(columns, SCHEMA)
            write_new(self._path(shard), arrow.with_metadata(table, {KEY: _digest(table)}))
        except TakenError:
            raise UserError(
                f"row {footer.first_row}: {self._path(shard)} is there already, and rows are scored once. "
                "Remove that file to score them again."
            ) from None

    def read(self, shard: int, footer: Footer) -> np.ndarray | None:
        """(B,) float32 scores of the shard's rows, NaN = no verdict; None if they are not scored yet."""
        table = self.table(shard, footer)
        return None if table is None else table["score"].to_numpy().astype(np.float32)

    def table(self, shard: int, footer: Footer) -> arrow.Table | None:
        if not self.has(shard):
            return None
        path = self._path(shard)
        try:
            table = arrow.read_table(path)
            matches = np.array_equal(table["row"].to_numpy(), np.arange(footer.first_row, footer.end_row))
            written = arrow.read_metadata(path).get(KEY)
            if written is not None and written.decode() != _digest(table):  # older ones have none
                raise ValueError("their digest is not that of what was written")
            if np.isinf(np.asarray(table["score"].to_numpy(), np.float64)).any():
                raise ValueError("a score is infinite")
        except (*arrow.ERRORS, KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(
                f"scores {path} of rows {footer.first_row} to {footer.end_row - 1} are damaged "
                f"({' '.join(str(error).split())[:160]}). Remove that file and score again."
            ) from error
        if not matches:
            raise DamagedError(f"scores {path} are not of its rows. Remove that file and score again.")
        return table

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.parquet"


def _digest(table: arrow.Table) -> str:
    """SHA-256 of the values, whatever the file format made of them."""
    found = hashlib.sha256()
    for name in SCHEMA:
        found.update(json.dumps(table[name].to_pylist()).encode())
    return found.hexdigest()


def check_scores(name: str, num_rows: int, scores: Tensor, components: Mapping[str, Tensor] | None) -> None:
    for what, values in {name: scores, **(components or {})}.items():
        if values.shape != (num_rows,):
            raise ValueError(f"scores {what}: expected a tensor of {num_rows} numbers, one per rollout.")


def _numbers(values: Tensor) -> list[float | None]:
    """None for what is not finite."""
    numbers = cast(list[float], values.detach().float().cpu().numpy().tolist())
    return [number if math.isfinite(number) else None for number in numbers]


def _line(judge: Judge) -> str:
    settings = ", ".join(f"{k}={v}" for k, v in judge.settings.items())
    return f"{judge.reward}({settings})" + (f" of revision {judge.revision}" if judge.revision else "")
