"""The inputs of a run, noted in its folder: one that goes on reads what it read, or says that it does not."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from thinkdraw.errors import HeldError
from thinkdraw.runtime.formats import name_file_in_errors
from thinkdraw.runtime.formats.sealed import read_sealed, write_sealed
from thinkdraw.runtime.inputs.hashing import content_digest

INPUTS = "inputs.json"
ChangedInputs = Literal["refuse", "take"]
CHANGED_INPUTS = (
    "What to do if a run goes on and its prompts, rows or pictures are no longer those it began "
    "with: refuse and name them, or take them and say so."
)


@dataclass(frozen=True)
class Input:
    """What a setting named, and what was there. count: of prompts or rows, None where it is no list of them.

    since: the step from which on it was read; 0 unless it was taken up later.
    """

    named: str
    digest: str
    count: int | None = None
    since: int = 0

    @staticmethod
    def of(named: object, content: Iterable[object], count: int | None = None) -> "Input":
        return Input(str(named), content_digest(content), count)

    def change(self, now: "Input") -> str | None:
        """How another is not this one, in words; None where it is."""
        if now.digest == self.digest:
            return None
        if now.named != self.named:
            return f"{self.named} then, {now.named} now"
        if now.count != self.count:
            return f"{self.count} rows then, {now.count} now"
        return "other content under the same name"


class Inputs:
    """The inputs of a run, noted in a file of its folder. setting: as in the configuration, `prompts.source`."""

    def __init__(self, folder: Path, changed: ChangedInputs = "refuse") -> None:
        self.folder, self.changed = folder, changed
        self._now: dict[str, Input] = {}

    def note(self, setting: str, found: Input) -> None:
        self._now[setting] = found

    def noted(self, setting: str) -> Input | None:
        """What was noted for a setting when the run began, None without."""
        return self._read().get(setting)

    def hold(self, done: int, unit: str = "step") -> list[str]:
        """Compare with what was noted when the run began; returns what has changed and is taken up, a sentence each.

        done: so many steps, or what `unit` says. At 0 nothing was made yet, and nothing holds it to what it read.
        Raises HeldError where something has changed, unless it is to be taken up.
        """
        noted = self._read()
        changes = {name: why for name, i in noted.items() if name in self._now and (why := i.change(self._now[name]))}
        lines = [f"{name}={self._now[name].named} has changed ({why})" for name, why in changes.items()]
        if lines and done and self.changed == "refuse":
            raise HeldError(
                f"{self.folder} goes on from {unit} {done}, and {'; '.join(lines)}: what is before and what is after would be "
                "of different inputs. Put back what was there, choose another out=, or take it up with changed_inputs=take."
            )
        for name, found in self._now.items():
            since = done if name in changes else noted[name].since if name in noted else 0
            self._now[name] = replace(found, since=since)
        if done:  # what is noted later, at a round's start, is compared with it
            self._now = {**noted, **self._now}
        return [f"{line} since {self.folder} was begun: taken up from {unit} {done} on." for line in lines]

    def write(self) -> None:
        write_sealed(self.folder / INPUTS, {name: asdict(found) for name, found in self._now.items()})

    def _read(self) -> dict[str, Input]:
        file = self.folder / INPUTS
        if not file.exists():
            return {}
        way_out = "Restore it; or remove it, and the run goes on with its inputs as they are now."
        rows = read_sealed(file, way_out)
        with name_file_in_errors(file, way_out):
            return {name: Input(**row) for name, row in rows.items()}
