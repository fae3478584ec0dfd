"""A process with emulated GPUs: `python -m tests.emulated.host HOOKS.so`, where HOOKS.so is `hooks.cpp` compiled.

A line asks for a job, {"scenario": a function of scenarios.py, "patch": a file or null}; a line answers, {"error": text},
empty where the function returned. Each runs in a fork of its own, with the patched files in place of those in the tree.
"""

import ctypes
import json
import os
import re
import signal
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 120  # that a job may take
DOES_NOT_APPLY = "does not apply"


def read_patch(text: str) -> dict[Path, list[tuple[str, str]]]:
    """Each file of a unified diff → (what stands there, what stands there after it), of each hunk."""
    found: dict[Path, list[tuple[str, str]]] = {}
    for part in re.split(r"^--- a/", text, flags=re.M)[1:]:
        name, hunks = part.splitlines()[0], re.split(r"^@@.*\n", part, flags=re.M)[1:]
        sides = [[line for line in hunk.splitlines(keepends=True) if line[0] != "\\"] for hunk in hunks]
        found[ROOT / name] = [
            ("".join(s[1:] for s in side if s[0] != "+"), "".join(s[1:] for s in side if s[0] != "-")) for side in sides
        ]
    return found


def patched_files(patch: Path) -> dict[str, str]:
    """Path → source with the patch. Raises ValueError where a hunk's lines are not there, once, as they stand in it."""
    sources = {}
    for file, hunks in read_patch(patch.read_text(encoding="utf-8")).items():
        source = file.read_text(encoding="utf-8")
        for before, after in hunks:
            if source.count(before) != 1:
                raise ValueError(f"{patch.name} {DOES_NOT_APPLY}: {file.name} lacks its lines. Write the fault anew.")
            source = source.replace(before, after)
        sources[str(file)] = source
    return sources


def import_instead(sources: dict[str, str]) -> None:
    """Let modules whose file is in `sources` be made of that text."""
    as_it_is: Any = SourceFileLoader.get_code

    def get_code(loader: Any, name: str) -> Any:
        text = sources.get(os.path.realpath(loader.path))
        return as_it_is(loader, name) if text is None else compile(text, loader.path, "exec")

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign]


def job(scenario: str, patch: str | None) -> str:
    try:
        import_instead(patched_files(Path(patch)) if patch else {})
        from tests.emulated import scenarios

        getattr(scenarios, scenario)()
    except BaseException:
        return traceback.format_exc()
    return ""


def in_a_fork(scenario: str, patch: str | None) -> str:
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        with os.fdopen(writes, "w") as answer:
            answer.write("done\n" + job(scenario, patch))
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said.removeprefix("done\n") if said else f"{scenario} died or took longer than {SECONDS} s"


def main() -> None:
    hooks = ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)  # before torch
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import peft  # noqa: F401  what takes long to import, and is not ours
    import torch
    from tests.emulated import device
    from transformers import JanusForConditionalGeneration, JanusProcessor  # noqa: F401

    torch.set_num_threads(1)
    device.install(hooks)
    for line in sys.stdin:
        print(json.dumps({"error": in_a_fork(**json.loads(line))}), file=answers)


if __name__ == "__main__":
    main()
