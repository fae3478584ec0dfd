"""A whole benchmark as `thinkdraw eval` runs it: killed and gone on with, exported and scored again. Prints a table and JSON.

    python bench/evaluation.py --out runs/geneval --kill drawn.jsonl:900 --kill results.jsonl:900 -- \\
        lab geneval prompts=benchmarks/geneval

What stands behind `--` are the arguments of `thinkdraw eval`: a checkpoint and one benchmark. The stages are

1. one run for each `--kill FILE:ROWS`, ended by SIGKILL when the file has so many rows; the next one goes on from there;
2. a run to the end, which also exports the official layout;
3. the layout scored by `images=`, nothing drawn. Its seconds are those of scoring, start of the process included.

Checked at the end: every picture has one row in each file, so that nothing was done twice, and the rows of stages 2 and 3
are the same but for the files' stamps. Seconds, CPU seconds and peak memory are the processes' own, as the kernel counts them.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from thinkdraw.runtime.tracking import environment

VERB = "import sys; from thinkdraw.cli import main; sys.argv[0] = 'thinkdraw'; main()"
COLUMNS = ("stage", "seconds", "cpu_s", "peak_gb", "drawn.jsonl", "results.jsonl")


def run(stage: str, out: Path, arguments: list[str], kill: tuple[str, int] | None = None) -> dict[str, Any]:
    """One process. kill: end it when this file below `out` has so many rows."""
    log = out.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with log.open("a") as file:
        arguments = [*arguments, "--out", str(out)]
        job = subprocess.Popen([sys.executable, "-c", VERB, "eval", *arguments], stdout=file, stderr=file)
    try:
        pid = 0
        while not pid:
            time.sleep(0.2)
            if kill and len(rows(out, kill[0])) >= kill[1]:
                job.kill()
                kill = None
            pid, status, used = os.wait4(job.pid, os.WNOHANG)
        job.returncode = os.waitstatus_to_exitcode(status)
    finally:
        job.kill()  # where this program is stopped; one that has ended is left alone
    wanted = -signal.SIGKILL if stage.startswith("killed") else 0
    if job.returncode != wanted:
        raise SystemExit(f"{stage} ended with {job.returncode}, not {wanted}: see {log}")
    return {
        "stage": stage, "seconds": round(time.monotonic() - began, 1), "cpu_s": round(used.ru_utime + used.ru_stime, 1),
        "peak_gb": round(used.ru_maxrss * 1024 / 1e9, 2), **{name: len(rows(out, name)) for name in COLUMNS[4:]},
    }  # fmt: skip


def rows(out: Path, name: str) -> list[str]:
    """The whole lines of the file of that name, of the drawing or of its judge."""
    files = [*out.glob(f"*/{name}"), *out.glob(f"*/*/{name}")]
    return [line for path in files for line in path.open(encoding="utf-8") if line[-1] == "\n"]


def of_pictures(out: Path, name: str) -> dict[tuple[int, int], dict[str, Any]]:
    """(prompt, sample) → row without its stamp. Ends the program where a picture has two."""
    found = [json.loads(line) for line in rows(out, name)]
    named = {(row["prompt_index"], row["sample"]): row | {"stamp": None} for row in found}
    if len(named) < len(found):
        raise SystemExit(f"{out}: {len(found)} rows of {name} are about {len(named)} pictures: work was done twice")
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, the layout and the report")
    parser.add_argument("--kill", action="append", default=[], metavar="FILE:ROWS")
    parser.add_argument("arguments", nargs="+", help="checkpoint and options of thinkdraw eval, behind --")
    given = parser.parse_args()
    drawn, again, layout = given.out / "drawn", given.out / "again", given.out / "layout"

    stages = []
    for kill in given.kill:
        name, _, count = kill.rpartition(":")
        stages.append(run(f"killed at {name} {count}", drawn, given.arguments, (name, int(count))))
    stages.append(run("to the end", drawn, [*given.arguments, f"export_official={layout}"]))
    stages.append(run("the layout again", again, [f"images={layout}", *given.arguments[1:]]))

    ours, theirs = (of_pictures(out, "results.jsonl") for out in (drawn, again))
    pictures = of_pictures(drawn, "drawn.jsonl")
    if not ours.keys() == theirs.keys() == pictures.keys():
        raise SystemExit(f"{len(pictures)} pictures, {len(ours)} rows, {len(theirs)} rows of the layout")
    report = {
        "arguments": given.arguments, "pictures": len(pictures), "files_of_the_layout": sum(1 for p in layout.rglob("*") if p.is_file()),
        "rows_that_differ": sum(ours[key] != theirs[key] for key in ours), "stages": stages,
        "threads": os.environ.get("OMP_NUM_THREADS"), "load_average": os.getloadavg(), "environment": environment(),
    }  # fmt: skip
    for row in [dict.fromkeys(COLUMNS), *stages]:
        print(
            "  ".join(
                f"{key if row['stage'] is None else row[key]!s:>{28 if key == 'stage' else 13}}" for key in COLUMNS
            )
        )
    (given.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
