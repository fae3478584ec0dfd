"""Write the tree and the floors of docs/architecture.md from the code.

    python docs/make_architecture.py
    python docs/make_architecture.py --check

A file's line is the first line of its docstring. `--check` writes nothing, and exits 1 where the page is out of date.
"""

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGE = ROOT / "src" / "thinkdraw"


def summary(file: Path) -> str:
    """Read the first line of a file's docstring."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def floors() -> list[set[str]]:
    """Read the floors from the test that enforces them, ground floor first."""
    tree = ast.parse((ROOT / "tests" / "test_house.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "FLOORS":
            return ast.literal_eval(node.value)
    raise SystemExit("tests/test_house.py has no FLOORS.")


def draw_floors() -> str:
    """List the floors with the roof on top, as text."""
    here = {path.name.removesuffix(".py") for path in PACKAGE.iterdir()}
    lines = [f"{number:>2}  {'  '.join(sorted(rooms & here))}" for number, rooms in enumerate(floors())]
    return "```text\n" + "\n".join(reversed(lines)) + "\n```"


def draw_tree() -> str:
    """List every file of the package with its summary, a section for each room."""
    sections = ["### Top level\n\n" + _table(sorted(PACKAGE.glob("*.py")), PACKAGE)]
    for room in sorted(path for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))):
        title = f"### {room.name}/\n\n{summary(room / '__init__.py')}\n\n"
        sections.append(title + _table([f for f in sorted(room.rglob("*.py")) if f != room / "__init__.py"], room))
    return "\n".join(sections).rstrip()


def _table(files: list[Path], room: Path) -> str:
    # An empty or bare __init__.py says nothing about the room that its own line would not.
    lines = [(file.relative_to(room).as_posix(), file, summary(file)) for file in files]
    rows = [
        f"| [{name}](../{file.relative_to(ROOT).as_posix()}) | {_cell(text)} |" for name, file, text in lines if text
    ]
    return "| file | what it is |\n|---|---|\n" + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def page(text: str) -> str:
    """Put today's floors and tree between their marks in the page's text."""
    for mark, block in (("floors", draw_floors()), ("tree", draw_tree())):
        pattern = re.compile(rf"(<!-- {mark} -->\n).*?(<!-- end of {mark} -->)", flags=re.DOTALL)
        text, count = pattern.subn(lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text)
        if count != 1:
            raise SystemExit(f"{PAGE} has {count} places for the {mark}; it needs one.")
    return text


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--check", action="store_true")
    before = PAGE.read_text(encoding="utf-8")
    after = page(before)
    if options.parse_args().check:
        sys.exit("docs/architecture.md is out of date: run `make docs`." if after != before else 0)
    PAGE.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
