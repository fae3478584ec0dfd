"""Damage valid files with fixed seeds, read them as the commands do, and count what goes wrong.

    python -m tests.fuzz.attack --inputs 1200

A traceback is anything but the one line that a person is meant to read; a hang takes more than TIMEOUT_S; a silent acceptance
gives other numbers than those that were written, or a value that cannot be.
"""

import argparse
import itertools
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.mutations import of_bytes, of_text
from tests.fuzz.targets import TARGETS, Target, odd_neighbour

from thinkdraw.errors import UserError

TIMEOUT_S = 20
KINDS = ("refused", "accepted", "traceback", "hang", "silent")


class Hang(BaseException):
    """Not an Exception, so that no reader takes it for an error of its own."""


@dataclass(frozen=True)
class Outcome:
    """kind: of KINDS. what: which file was damaged and how. said: the error's last words."""

    target: str
    kind: str
    what: str
    said: str = ""


def attack(target: Target, inputs: int, work: Path, seed: int = 0) -> Iterator[Outcome]:
    """The outcomes of `inputs` damaged copies of a target's files, one after the other."""
    rng = random.Random(zlib.crc32(f"{target.name} {seed}".encode()))
    whole, copy = work / target.name / "whole", work / target.name / "damaged"
    whole.mkdir(parents=True)
    target.make(whole)
    shutil.copytree(whole, copy)
    written = target.read(copy)
    shutil.rmtree(copy)
    files = [(f, how) for pattern, how in target.files.items() for f in sorted(whole.glob(pattern)) if f.is_file()]
    streams = itertools.cycle([(f, (of_text if how == "text" else of_bytes)(f.read_bytes(), rng)) for f, how in files])
    for number in range(inputs):
        shutil.copytree(whole, copy)
        if number % 12 == 11:
            what = odd_neighbour(copy, rng)
        else:
            file, damaged = next(streams)
            how, data = next(damaged)
            (copy / file.relative_to(whole)).write_bytes(data)
            what = f"{file.relative_to(whole)}: {how}"
        kind, said = _read(target, copy, written)
        yield Outcome(target.name, kind, f"#{number} {what}", said)
        shutil.rmtree(copy, ignore_errors=True)


def _read(target: Target, folder: Path, written: Any) -> tuple[str, str]:
    def late(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(TIMEOUT_S)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = target.read(folder)
    except UserError as error:
        return ("traceback", f"lines: {error}") if "\n" in str(error) else ("refused", str(error))
    except Hang:
        return "hang", ""
    except AssertionError as error:
        return "silent", str(error)
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return "traceback", f"{type(error).__name__}: {str(error)[:200]} ({last.filename}:{last.lineno})"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return (
        ("accepted", "")
        if target.accepts(found, written)
        else ("silent", f"{str(found)[:150]} for {str(written)[:150]}")
    )


def attack_all(inputs: int, work: Path, seed: int = 0, names: Iterable[str] = ()) -> list[Outcome]:
    """About `inputs` inputs over all targets, or those named, in their weights."""
    chosen = [target for target in TARGETS if not names or target.name in set(names)]
    total = sum(target.weight for target in chosen)
    return [
        outcome for target in chosen for outcome in attack(target, round(inputs * target.weight / total), work, seed)
    ]


def table(outcomes: Iterable[Outcome]) -> str:
    """A row per target, and their sum."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        counts.setdefault(outcome.target, Counter())[outcome.kind] += 1
    counts["sum"] = sum(counts.values(), Counter())
    lines = ["| inputs | tried | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 2) + "|"]
    lines += [
        f"| {name} | {sum(found.values())} | " + " | ".join(str(found[kind]) for kind in KINDS) + " |"
        for name, found in counts.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="names of targets")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = attack_all(given.inputs, Path(folder), given.seed, given.only)
    for outcome in outcomes:
        if outcome.kind in ("traceback", "hang", "silent"):
            print(
                f"{outcome.kind}: {outcome.target} {outcome.what}: {outcome.said}".encode("unicode_escape").decode(),
                file=sys.stderr,
            )
    print(table(outcomes))


if __name__ == "__main__":
    main()
