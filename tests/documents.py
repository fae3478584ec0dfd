"""The commands in the documents: where they stand, and whether the real command line takes them."""

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest import mock

import typer
from typer.testing import CliRunner

from thinkdraw.cli import app

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "bench/*.md", "examples/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "CHANGELOG.md"  # it names what is gone
)
OPTIONS = {"-h", "--help", "--version"}
# What documents call "your own": the files of these names exist where commands are checked.
OWN_FILES = {
    "run.yaml": "recipe: grpo\nprompts: {source: train.jsonl}\n",
    "config.yaml": "recipe: grpo\n",
    "grpo.yaml": "recipe: grpo\n",
}
# A placeholder, and something of its kind.
STANDS_FOR = {"CKPT": "lab"}


@dataclass(frozen=True)
class Command:
    """A command of a page, as it is typed."""

    page: Path
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        """The words that a shell makes of it, placeholders filled in."""
        words = shlex.split(self.text, comments=True)
        return [STANDS_FOR.get(word, word) for word in words]

    @property
    def is_form(self) -> bool:
        """Whether it shows a command's form, with parts left open, and is no command itself."""
        return bool(re.search(r"…|\.\.\.|\bVERB\b|[ .](?:CONFIG|NAME|RUN|STORE)\b", self.text))

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(page: Path, language: str = r"\w*") -> Iterator[tuple[int, str, str]]:
    """Yield line number, language and text of a page's fenced blocks."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(rf"^```({language})\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        yield text[: match.start(2)].count("\n") + 1, match[1], match[2]


def commands_of(page: Path) -> list[Command]:
    """Return the commands of a page: lines of blocks, indented lines, and code within a sentence."""
    commands = []
    for number, line in _lines(page):
        start = re.search(r"(?:^|\s)(thinkdraw |python bench/|python -m bench\.|make )", line)
        if start and (start.start(1) == 0 or line.startswith(("torchrun ", "accelerate "))):
            typed = re.split(r" {3,}", line[start.start(1) :])[0]  # what stands behind a wide gap is about the command
            commands += [Command(page, number, part.strip()) for part in typed.split(" && ")]
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", lambda block: "\n" * block[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)
    for match in re.finditer(r"`((?:thinkdraw |python bench/|python -m bench\.|make )[^`]*)`", text):
        if len(match[1].split()) > 1 and not match[1].endswith(".py"):  # of one word, and of a script, it is the name
            commands.append(Command(page, text[: match.start()].count("\n") + 1, " ".join(match[1].split())))
    return commands


def _lines(page: Path) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines of shell blocks and of indented ones; continued lines are joined."""
    for start, language, body in blocks(page):
        if language in ("", "text", "bash", "sh", "shell", "console"):
            for offset, line in enumerate(re.sub(r"\\\n\s*", " ", body).splitlines()):
                yield start + offset, line.removeprefix("$ ")
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("    ") and not line.startswith("     "):
            yield number, line.strip()


def problem_with(command: Command) -> str | None:
    """Say why the real command line does not take a command, or None if it does. Nothing is trained or drawn.

    The current folder should hold OWN_FILES, and is written to.
    """
    words = command.words
    match words[0]:
        case "make":
            targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
            return next((f"no target {word}" for word in words[1:] if "=" not in word and word not in targets), None)
        case "python":
            return _problem_with_script(words[1:])
    return _problem_with_verb(words[1:], command.is_form)


def invoke(words: list[str]) -> tuple[int, str]:
    """Run `thinkdraw` in this process; returns its exit code and all it printed."""
    result = CliRunner().invoke(app, words)
    error = f"{type(result.exception).__name__}: {result.exception}" if result.exception else ""
    return result.exit_code, f"{result.output}{error}"


def _problem_with_verb(words: list[str], is_form: bool) -> str | None:
    if is_form:
        return None if words[0] == "VERB" or _verb(words[:1])[1] else f"no verb {words[0]!r}"
    verb, depth = _verb(words)
    if verb is None:
        return None if set(words) <= OPTIONS else f"no verb {' '.join(words[:2])!r}"
    if not words[depth:] or set(words) & OPTIONS:
        return None
    if any("--dry-run" in parameter.opts for parameter in verb.params):
        code, output = invoke([*words, *([] if "--dry-run" in words else ["--dry-run"])])
    elif words[0] in ("list", "explain"):
        code, output = invoke(words)
    else:
        code, output = _parse(verb, words[depth:])
    if "the old form goes" in output:
        return output
    return None if code == 0 else output


def _verb(words: list[str]) -> tuple[Any, int]:
    """Find the verb that words begin with, and how many of them name it."""
    command: Any = typer.main.get_command(app)
    for depth, word in enumerate([*words, ""]):
        inner = getattr(command, "commands", None)
        if inner is None:
            return command, depth
        if word not in inner:
            return None, depth  # 1 and more: the words of a group
        command = inner[word]
    return None, 0


def _parse(verb: Any, words: list[str]) -> tuple[int, str]:
    """Parse the words of a verb that cannot be run without running it."""
    try:
        verb.make_context(verb.name or "", list(words))
    except Exception as error:
        return 2, f"{type(error).__name__}: {error}"
    return 0, ""


class _ParsedError(Exception):
    """The arguments of a script were parsed, and it need not run."""


def _problem_with_script(words: list[str]) -> str | None:
    """Start a script of bench/ up to where its arguments are parsed."""
    file = ROOT / (words[1].replace(".", "/") + ".py" if words[0] == "-m" else words[0])
    arguments = words[2:] if words[0] == "-m" else words[1:]
    if not file.is_file():
        return f"no file {words[0]}"
    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, *args: Any, **keys: Any) -> None:
        parse(parser, *args, **keys)
        raise _ParsedError

    with _own_argv([str(file), *arguments]), mock.patch.object(argparse.ArgumentParser, "parse_args", parse_and_stop):
        try:
            runpy.run_path(str(file), run_name="__main__")
        except _ParsedError:
            return None
        except SystemExit as error:
            if "--help" in arguments:
                return None
            return f"{file.name} ended with {error.code}: its arguments are others"
    return f"{file.name} parses no arguments" if arguments else None


@contextmanager
def _own_argv(argv: list[str]) -> Iterator[None]:
    path = [str(ROOT / "bench"), str(ROOT), *sys.path]
    with mock.patch.object(sys, "argv", argv), mock.patch.object(sys, "path", path):
        yield


def yaml_recipe(text: str) -> str | None:
    """Return the recipe that a block of YAML is a configuration of, or a part of; None if it does not say."""
    match = re.search(r"^recipe: (\w+)", text, flags=re.MULTILINE) or re.search(r"configuration of recipe (\w+)", text)
    return cast(str, match[1]) if match else None
