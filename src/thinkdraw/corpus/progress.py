"""Progress of a corpus on stderr: a bar on a terminal, else a line now and then."""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from thinkdraw.console import plain
from thinkdraw.corpus.teachers.asking import Status


class CorpusProgress:
    """Shows progress; use it as a context manager and give it to `write` as `show`.

    every_s: seconds between lines where there is no terminal.
    """

    def __init__(self, every_s: float = 10.0) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("corpus"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[line]}"))
        self._bar = Progress(*columns, console=console) if console.is_terminal else None
        self._console, self._every_s, self._printed_at = console, every_s, 0.0

    def __enter__(self) -> "CorpusProgress":
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task("corpus", total=None, line="")
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, status: Status) -> None:
        counts = status.counts
        done = counts.total - counts.waiting
        if self._bar:
            self._bar.update(self._task, completed=done, total=counts.total, line=status_line(status))
        elif not counts.waiting or time.monotonic() - self._printed_at >= self._every_s:
            self._printed_at = time.monotonic()
            self._console.print(
                plain(f"corpus {done}/{counts.total} {status_line(status)}"), soft_wrap=True, highlight=False
            )


def status_line(status: Status) -> str:
    """Write rate, tokens, cost and time left in one line."""
    counts = status.counts
    words = [f"{status.rows_per_s:.1f} rows/s", f"{counts.tokens_in + counts.tokens_out} tokens"]
    if status.money:
        words.append(f"cost {status.money:.2f}")
    if counts.rejected:
        words.append(f"{counts.rejected} set aside")
    if counts.malformed:
        words.append(f"{counts.malformed} malformed")
    if status.left_s is not None:
        minutes, seconds = divmod(round(status.left_s), 60)
        words.append(f"left {minutes}:{seconds:02d}")
    return ", ".join(words)
