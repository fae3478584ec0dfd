"""A run's progress on standard error: a bar on a terminal, else lines; warnings."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thinkdraw.console import plain


class Display:
    """Shows the progress of a run, inside a `with` block.

    active: False shows nothing, as in every process but the main one.
    announce: say in a line that it begins, where there is no bar and the first step may take minutes.
    """

    def __init__(self, name: str, total: int, log_every: int, active: bool = True, announce: bool = False) -> None:
        self.console = Console(stderr=True, quiet=not active)
        self.name, self.total, self.log_every, self.announce = name, total, log_every, announce
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[shown]}"),
        )
        self._bar = Progress(*columns, console=self.console) if active and self.console.is_terminal else None
        self._warned: set[str] = set()
        self._first: tuple[float, float] | None = None

    def __enter__(self) -> "Display":
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=self.total, shown="")
        elif self.announce:
            self.console.print(plain(f"{self.name} begins, {self.total} in all"), soft_wrap=True, highlight=False)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(
        self, step: int, row: Mapping[str, float | None], names: tuple[str, ...], progress: float | None = None
    ) -> None:
        """Move the bar to `step`, or print a line every `log_every` steps.

        names: columns of the metrics row to show.
        progress: 0..1 of the run; None: by steps. With `max_seconds` the clock may end a run before its last step.
        """
        shown = " ".join(f"{n} {row[n]:.3g}" for n in names if row.get(n) is not None)
        done = step / self.total if progress is None else progress
        self._first = self._first or (time.monotonic(), done)
        if self._bar:
            self._bar.update(self._task, completed=max(step, done * self.total), shown=shown)
        elif step % self.log_every == 0 or done >= 1:
            began, first = self._first
            left = (time.monotonic() - began) / (done - first) * (1 - done) if done > first else 0.0
            self.console.print(
                plain(f"{self.name} {step}/{self.total} {shown} left {left:.0f}s"), soft_wrap=True, highlight=False
            )

    def warn(self, key: str, message: str) -> None:
        """Print a warning, once per run for each key."""
        if key not in self._warned:
            self._warned.add(key)
            self.console.print(plain("warning:", "bold yellow") + plain(f" {message}"), soft_wrap=True, highlight=False)
