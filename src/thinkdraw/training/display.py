"""What a person sees of a run, on stderr: a bar on a terminal, else a line now and then, and loud warnings."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from thinkdraw.console import plain


class Display:
    """Use as a context manager; silent in every process but the main one."""

    def __init__(self, name: str, total: int, log_every: int, active: bool = True) -> None:
        self.console = Console(stderr=True, quiet=not active)
        self.name, self.total, self.log_every = name, total, log_every
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
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(
        self, step: int, row: Mapping[str, float | None], names: tuple[str, ...], progress: float | None = None
    ) -> None:
        """Bring the bar to `step`, or print every log_every-th step, with these fields of the metrics row.

        progress: 0..1 of the run, where the clock may end it before the last step.
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
        """Say it once per run."""
        if key not in self._warned:
            self._warned.add(key)
            self.console.print(plain("warning:", "bold yellow") + plain(f" {message}"), soft_wrap=True, highlight=False)
