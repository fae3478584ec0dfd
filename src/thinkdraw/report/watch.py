"""The report of a run that is still going on, written anew whenever it has grown."""

import time
from collections.abc import Callable
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.report.collect import collect
from thinkdraw.report.page import render
from thinkdraw.runtime.files import atomic_write_bytes, has_writer

LOOK_S = 3  # seconds between looks at the folder
RELOAD_S = 10  # seconds between loads of the page

Files = dict[Path, tuple[int, float]]  # file → its size and when it changed


def watch_run(
    folder: Path, output: Path, say: Callable[[str], object], wait: Callable[[float], object] = time.sleep
) -> None:
    """Write the report whenever the run has grown, until nobody writes to it.

    folder: of a run, or of runs like the quickstart's; it may not be there yet. output: the page, which loads itself again
    until the run has ended. say: is told of what is waited for. wait: sleeps.
    Raises UserError for a folder that no process writes to and that holds no run.
    """
    told, written = "", None
    while True:
        # In this order: what a run writes before it ends is in the files that are looked at afterwards.
        goes_on, files = is_going_on(folder), progress_files(folder)
        if files and (files != written or not goes_on):
            write_page(folder, output, RELOAD_S if goes_on else None)
            written = files
        line = f"waiting for more rows: {output}" if files else f"waiting for the first row of a run in {folder}"
        if not goes_on and (files or folder.is_dir()):
            if not files:
                raise UserError(
                    f"{folder} holds no run, and no process writes to it. Start the run first, or correct the name."
                )
            say(f"no process writes to {folder} any more: {output} is the last page")
            return
        if line != told:
            say(f"{line} (Ctrl-C ends)")
            told = line
        wait(LOOK_S)


def is_going_on(folder: Path) -> bool:
    """Tell whether a process writes to the folder, or to a run in it."""
    return folder.is_dir() and any(has_writer(path) for path in (folder, *folder.iterdir()) if path.is_dir())


def progress_files(folder: Path) -> Files:
    """List the files that grow while a run or an evaluation goes on."""
    patterns = ("metrics.jsonl", "*/metrics.jsonl", "eval/*.json*", "summary.json")
    files: Files = {}
    for path in (path for pattern in patterns for path in folder.glob(pattern)):
        stat = path.stat()
        files[path] = stat.st_size, stat.st_mtime
    return files


def write_page(folder: Path, output: Path, reload_s: int | None = None) -> None:
    """Write the page as it is now, whole or not at all."""
    # "replace": a policy over bytes can write half a surrogate pair, which UTF-8 cannot encode.
    atomic_write_bytes(output, render(collect(folder), reload_s).encode("utf-8", "replace"))
