"""The record of a run's inputs in its folder.

A resumed run reads the same inputs as before, or says what has changed.
"""

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
    """What a setting named, and a digest of what was there.

    count: number of prompts or rows, None where it is no list of them. since: the step from which the run has read this content; 0
    unless it was changed later.
    """

    named: str
    digest: str
    count: int | None = None
    since: int = 0

    @staticmethod
    def of(named: object, content: Iterable[object], count: int | None = None) -> "Input":
        return Input(str(named), content_digest(content), count)

    def change(self, now: "Input") -> str | None:
        """Describe how the input has changed; None where it has not."""
        if now.digest == self.digest:
            return None
        if now.named != self.named:
            return f"{self.named} then, {now.named} now"
        if now.count != self.count:
            return f"{self.count} rows then, {now.count} now"
        return "other content under the same name"


class Inputs:
    """The inputs of a run, recorded in a file of its folder.

    setting: its key in the configuration, such as `prompts.source`.
    """

    def __init__(self, folder: Path, changed: ChangedInputs = "refuse") -> None:
        self.folder, self.changed = folder, changed
        self._now: dict[str, Input] = {}

    def note(self, setting: str, content: Input) -> None:
        self._now[setting] = content

    def noted(self, setting: str) -> Input | None:
        """Return what was recorded for a setting when the run began, None without."""
        return self._read().get(setting)

    def hold(self, done: int, unit: str = "step") -> list[str]:
        """Compare the inputs with the record, and list each accepted change in words.

        done: how many steps, or what `unit` says, are done. At 0 nothing depends on the inputs yet, so any change passes. Raises HeldError
        where an input has changed, unless changes are to be accepted.
        """
        noted = self._read()
        changes = {name: why for name, i in noted.items() if name in self._now and (why := i.change(self._now[name]))}
        lines = [f"{name}={self._now[name].named} has changed ({why})" for name, why in changes.items()]
        if lines and done and self.changed == "refuse":
            raise HeldError(
                f"{self.folder} goes on from {unit} {done}, and {'; '.join(lines)}: what comes before and after would have "
                "different inputs. Restore the old inputs, choose another out=, or accept the new ones with changed_inputs=take."
            )
        for name, content in self._now.items():
            since = done if name in changes else noted[name].since if name in noted else 0
            self._now[name] = replace(content, since=since)
        if done:  # inputs that are noted later, at a round's start, are compared with the old record
            self._now = {**noted, **self._now}
        return [
            f"{line} since {self.folder} was begun: the new content is read from {unit} {done} on." for line in lines
        ]

    def write(self) -> None:
        write_sealed(self.folder / INPUTS, {name: asdict(content) for name, content in self._now.items()})

    def _read(self) -> dict[str, Input]:
        file = self.folder / INPUTS
        if not file.exists():
            return {}
        way_out = "Restore it; or remove it, and the run goes on with its inputs as they are now."
        rows = read_sealed(file, way_out)
        with name_file_in_errors(file, way_out):
            return {name: Input(**row) for name, row in rows.items()}
