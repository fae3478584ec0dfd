"""What a reader of one GRPO step has to enter: files, functions and depth of calls, and how long the functions are.

    python bench/trace_step.py            # --list names the files in the order in which they are entered

Measures the thinkdraw that its own interpreter imports, so another checkout is measured by that checkout's interpreter.
Runs `thinkdraw train lab_grpo` with one phase of 2 prompts × 2 rollouts on the shipped lab checkpoint, and counts from
the statement of the recipe's `run` that enters the policy's `sample` to the call from `run` in which the optimiser steps,
both inclusive. A function is a (file, qualified name) pair: all lambdas of one function are one, as are its list
comprehensions; methods that dataclasses generate do not count, nor does C++. Depth is in frames of the project below
`run`. Only what has a `def` has a length: from `def` to its last line.

Commit 0bfed93: 36 files and 229 functions until pictures are judged, then 54 files of 7,488 lines, 363 functions, 27 deep.
"""

import argparse
import ast
import contextlib
import inspect
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType
from typing import NamedTuple
from unittest import mock

from torch.optim.optimizer import register_optimizer_step_post_hook

import thinkdraw
from thinkdraw import cli
from thinkdraw.recipes import grpo

ROOT = Path(thinkdraw.__file__).parent
RUN = inspect.unwrap(grpo.run).__code__
SETTINGS = [
    "num_threads=1",
    "prompts_per_phase=2",
    "group_size=2",
    "minibatches=1",
    "passes=1",
    "max_steps=1",
    "validation.every=0",
]


class Call:
    """A call that `run` makes: from which line, the code entered below it in order, and the deepest stack of frames."""

    def __init__(self, line: int) -> None:
        self.line, self.depth = line, 0
        self.entered: dict[CodeType, None] = {}


class Trace:
    """All calls of `run`; which of them sampled, judged and stepped first, and who called the policy loss."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.moments: dict[str, int] = {}
        self.loss: CodeType | None = None

    def profile(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not _is_project(frame.f_code):
            return
        stack = _project_frames(frame)
        below_run = stack[-1].f_code is RUN
        if below_run and len(stack) == 2:
            self.calls.append(Call(stack[-1].f_lineno))
        elif not self.calls or (not below_run and threading.current_thread() is threading.main_thread()):
            return  # before `run`, or `run` itself; what a thread does belongs to the call that is under way
        call = self.calls[-1]
        call.entered[frame.f_code] = None
        call.depth = max(call.depth, len(stack) - below_run)
        room, name = _file(frame.f_code).split("/")[0], frame.f_code.co_name
        if (room, name) == ("policies", "sample"):
            self.reached("sample")
        elif (room, name) == ("rewards", "__call__"):
            self.reached("judge")
        elif (room, name) == ("objectives", "clipped_loss"):
            self.loss = stack[1].f_code

    def reached(self, moment: str) -> None:
        self.moments.setdefault(moment, len(self.calls) - 1)

    def window(self, last: str) -> list[Call]:
        """From the statement of `run` that samples to the call that judges or steps."""
        first = statement(Path(RUN.co_filename).read_text(), self.calls[self.moments["sample"]].line)
        begin = next(i for i, call in enumerate(self.calls) if call.line in first)
        return self.calls[begin : self.moments[last] + 1]


def _is_project(code: CodeType) -> bool:
    return code.co_filename.startswith(f"{ROOT}/")


def _file(code: CodeType) -> str:
    return Path(code.co_filename).relative_to(ROOT).as_posix()


def _project_frames(frame: FrameType | None) -> list[FrameType]:
    """Innermost first, `run` last."""
    stack = []
    while frame is not None and (not stack or stack[-1].f_code is not RUN):
        if _is_project(frame.f_code):
            stack.append(frame)
        frame = frame.f_back
    return stack


def statement(source: str, line: int) -> range:
    """Lines of the smallest statement around a line; of a compound one, its header."""
    smallest = range(0, sys.maxsize)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt):
            end = (node.end_lineno or node.lineno) + 1
            if isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try | ast.FunctionDef | ast.ClassDef):
                end = max(node.body[0].lineno, node.lineno + 1)
            lines = range(node.lineno, end)
            if line in lines and len(lines) < len(smallest):
                smallest = lines
    return smallest


class Definition(NamedTuple):
    name: str
    num_lines: int


def definitions() -> dict[tuple[str, int], Definition]:
    """Every `def` of the project by its file and the line on which its code begins, which is its first decorator's."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                found[file, first] = Definition(f"{file}:{node.lineno} {node.name}", length)
    return found


def trace_one_step() -> Trace:
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        settings = [*SETTINGS, "policy=lab", f"out={folder}/run"]
        stack.enter_context(mock.patch.object(sys, "argv", ["thinkdraw", "train", "lab_grpo", *settings]))
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        hook = register_optimizer_step_post_hook(lambda *_: trace.reached("step"))
        threading.setprofile(trace.profile)
        sys.setprofile(trace.profile)
        try:
            cli.main()
        except SystemExit as ended:
            if ended.code:
                raise
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # pyright: ignore[reportArgumentType]
            hook.remove()
    return trace


class Step:
    """What a window of calls entered. files: in order of entry, with their lines."""

    def __init__(self, calls: list[Call]) -> None:
        self.codes = dict.fromkeys(code for call in calls for code in call.entered)
        self.depth = max(call.depth for call in calls)
        self.functions = {(_file(code), code.co_qualname) for code in self.codes}
        self.files = {
            file: len((ROOT / file).read_text().splitlines()) for file in dict.fromkeys(map(_file, self.codes))
        }


def print_rooms(step: Step) -> None:
    room_of = {file: file.rpartition("/")[0] or "." for file in step.files}
    print(f"\n{'room':20} files  functions  lines")
    for room, num_files in Counter(room_of.values()).most_common():
        num_functions = sum(room_of[file] == room for file, _ in step.functions)
        num_lines = sum(lines for file, lines in step.files.items() if room_of[file] == room)
        print(f"{room:20} {num_files:5}  {num_functions:9}  {num_lines:5}")


def print_lengths(step: Step, loss: CodeType) -> None:
    defined = definitions()
    entered = [defined[key] for code in step.codes if (key := (_file(code), code.co_firstlineno)) in defined]
    print(f"\n{'lines of a function':20} count  p50  p95  longest")
    for name, group in (("entered", entered), ("of the project", list(defined.values()))):
        group.sort(key=lambda definition: definition.num_lines)
        p50, p95 = (group[int(share * len(group))].num_lines for share in (0.5, 0.95))
        print(f"{name:20} {len(group):5}  {p50:3}  {p95:3}  {group[-1].num_lines} {group[-1].name}")
    for name, code in (("loop", RUN), ("loss", loss)):
        found = defined[_file(code), code.co_firstlineno]
        print(f"the {name}: {found.num_lines} lines, {found.name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="the files in the order of entry")
    options = parser.parse_args()
    trace = trace_one_step()
    if trace.loss is None or not {"sample", "judge", "step"} <= trace.moments.keys():
        sys.exit(
            f"of sampling, judging, clipped_loss and the optimiser's step only these were seen: {[*trace.moments]}"
        )
    judged, step = Step(trace.window("judge")), Step(trace.window("step"))
    print(f"until pictures are judged: {len(judged.files)} files, {len(judged.functions)} functions")
    print(
        f"until the optimiser has stepped: {len(step.files)} files of {sum(step.files.values()):,} lines, "
        f"{len(step.functions)} functions, {step.depth} project frames deep"
    )
    print_rooms(step)
    print_lengths(step, trace.loss)
    if options.list:
        print("\nfiles in the order in which they are entered:")
        for number, (file, num_lines) in enumerate(step.files.items(), 1):
            print(f"{number:3} {file} {num_lines}")


if __name__ == "__main__":
    main()
