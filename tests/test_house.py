"""The house rules that a machine can check: which room imports which, how big things get, and what is never used at all."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from thinkdraw.training.settings import TRACKERS

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
PACKAGE = SRC / "thinkdraw"
FILES = sorted(PACKAGE.rglob("*.py"))
FILE_SET = set(FILES)
MOST_FILES = 16  # in a folder
MOST_LINES = 80  # of a function, its docstring apart
MOST_UNTYPED = 270  # half of what there was in November 2026
STILL_LONG: set[str] = set()

# From the ground up; a room imports rooms of lower floors only. Floor 0 and the roof are each one family.
FLOORS = [
    {"types", "console", "images", "picture_reader", "config", "shorthand", "errors", "version", "runtime"},
    {"objectives", "lab", "charts"},
    {"data"},
    {"policies", "judges"},
    {"rewards"},
    {"rollouts", "serve"},
    {"benchmarks", "search", "corpus"},
    {"training"},
    {"recipes"},
    {"studies", "planning", "make_lab"},
    {"cli", "report", "publishing", "api", "settings", "__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# torchvision breaks transformers when its build and torch's differ; the others bring it along.
BANNED_PACKAGES = {"torchvision", "open_clip", "open-clip-torch", "timm"}
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle"}


@cache
def tree_of(file: Path) -> ast.Module:
    """A file's syntax, parsed once for all tests."""
    return ast.parse(file.read_text(encoding="utf-8"))


def room_of(file: Path) -> str:
    first = file.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_modules(tree: ast.AST, module_parts: list[str], is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted module) of every import, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module.split(".") if node.module else []
            if node.level:
                package = module_parts if is_package else module_parts[:-1]
                base = package[: len(package) - (node.level - 1)] + base
            for alias in node.names:
                yield node.lineno, ".".join([*base, alias.name])


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    is_package = file.name == "__init__.py"
    parts = list(file.relative_to(SRC).with_suffix("").parts)
    yield from imported_modules(tree_of(file), parts[:-1] if is_package else parts, is_package)


def why_forbidden(room: str, other: str) -> str | None:
    """The rule that an import of room `other` by `room` breaks, or None."""
    if room == other:
        return None
    above, below = FLOOR_OF[room], FLOOR_OF[other]
    if below > above:
        return f"imports point down only: {room} is on floor {above}, {other} on floor {below}"
    # The lab and data serve everything above them; data is told about the lab by its callers.
    if below < above or above in (0, len(FLOORS) - 1):
        return None
    return f"rooms of floor {above} do not import each other"


def test_every_room_has_a_floor():
    rooms = {room_of(file) for file in FILES} - {"__init__"}
    assert not (unknown := rooms - FLOOR_OF.keys()), f"give these rooms a floor in FLOORS, or move them: {unknown}"


def test_imports_point_down_only():
    broken = []
    for file in FILES:
        room = room_of(file)
        if room not in FLOOR_OF:  # thinkdraw/__init__.py may show any room at the door
            continue
        for line, module in imports_of(file):
            parts = module.split(".")
            if (
                parts[0] == "thinkdraw"
                and len(parts) > 1
                and parts[1] in FLOOR_OF
                and (why := why_forbidden(room, parts[1]))
            ):
                broken.append(f"{file.relative_to(ROOT)}:{line} imports {module}: {why}")
    assert not broken, "\n" + "\n".join(broken)


def module_file(module: str) -> Path | None:
    """The file that holds a module, or the name in it that is imported; None for what is not ours."""
    parts = module.split(".")
    for length in (len(parts), len(parts) - 1):
        path = SRC.joinpath(*parts[:length])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file in FILE_SET:
                return file
    return None


def cycle_in(arrows: dict[str, set[str]]) -> list[str]:
    """One circle of arrows, its first name again at the end; [] where there is none."""
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for other in sorted(arrows.get(name, ())):
            if circle := walk(other, [*trail, name]):
                return circle
        done.add(name)
        return []

    return next((circle for name in arrows if (circle := walk(name, []))), [])


def test_no_circle_of_imports_between_files():
    """Imports for types alone and those inside functions count: who needs another's types needs the other."""
    arrows = {}
    for file in FILES:
        targets = {target for _, module in imports_of(file) if (target := module_file(module))}
        arrows[str(file.relative_to(SRC))] = {str(target.relative_to(SRC)) for target in targets - {file}}
    assert not (circle := cycle_in(arrows)), " → ".join(circle)


def test_a_circle_is_found():
    assert cycle_in({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == []
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_no_folder_has_more_files_than_an_eye_takes_in():
    folders = Counter(file.parent.relative_to(SRC).as_posix() for file in FILES)
    assert not (full := {name: count for name, count in folders.items() if count > MOST_FILES}), full


def test_every_room_says_what_it_is():
    rooms = {file.parent for file in FILES}
    silent = [
        room.relative_to(SRC).as_posix()
        for room in rooms
        if not (says := ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))))
        or "TODO" in says
    ]
    assert not silent, f"one sentence in __init__.py: {silent}"


def lines_of_code(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its docstring apart."""
    first = function.body[0]
    is_prose = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    prose = first.end_lineno - first.lineno + 1 if is_prose else 0
    return function.end_lineno - function.lineno + 1 - prose


def test_no_function_is_longer_than_a_screen():
    """Of the few that are, the list may only shrink."""
    long = set()
    for file in FILES:
        for node in ast.walk(tree_of(file)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and lines_of_code(node) > MOST_LINES:
                long.add(f"{file.relative_to(PACKAGE).as_posix()}:{node.name}")
    assert not (new := long - STILL_LONG), f"split it: {new}"
    assert not (gone := STILL_LONG - long), f"no longer long; take it out of STILL_LONG: {gone}"


def untyped(tree: ast.AST, code: str) -> int:
    """How often the name `Any` is used (imports and text apart), and a type checker told to look away."""
    names = sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))
    return names + len(re.findall(r"# *(?:type|pyright): *ignore", code))


def test_untyped_places_get_fewer():
    counts: Counter[str] = Counter()
    for file in FILES:
        code = file.read_text(encoding="utf-8")
        counts[room_of(file)] += untyped(tree_of(file), code)
    assert counts.total() <= MOST_UNTYPED, f"`Any` and ignores: {counts.total()}, {dict(counts.most_common())}"


@pytest.mark.parametrize(
    ("room", "other", "allowed"),
    [
        ("config", "runtime", True),
        ("runtime", "lab", False),
        ("rewards", "judges", True),
        ("judges", "rewards", False),
        ("policies", "lab", True),
        ("lab", "data", False),
        ("objectives", "policies", False),
        ("benchmarks", "search", False),
        ("recipes", "benchmarks", True),
        ("rollouts", "recipes", False),
        ("cli", "report", True),
    ],
)
def test_the_walls_stand_where_the_house_draws_them(room, other, allowed):
    assert (why_forbidden(room, other) is None) == allowed


def test_nothing_above_the_policies_knows_a_family():
    """Strings too: a registry of families is for policies/ to keep."""
    above = [file for file in FILES if room_of(file) != "policies"]
    known = [str(f.relative_to(ROOT)) for f in above if "policies.janus" in f.read_text(encoding="utf-8")]
    assert not known, f"use types.Policy, or what policies/ offers of every family: {known}"


def test_relative_and_nested_imports_are_seen():
    code = "from ..judges import clip\ndef f():\n    from . import rules\n    import thinkdraw.cli\n"
    found = [module for _, module in imported_modules(ast.parse(code), ["thinkdraw", "rewards", "x"], is_package=False)]
    assert sorted(found) == ["thinkdraw.cli", "thinkdraw.judges.clip", "thinkdraw.rewards.rules"]


def test_no_file_imports_a_banned_package():
    banned = BANNED_PACKAGES | BANNED_MODULES
    tests = [f for f in (ROOT / "tests").rglob("*.py")]
    broken = []
    for file in [*FILES, *tests]:
        for node in ast.walk(tree_of(file)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            broken += [f"{file.relative_to(ROOT)}:{node.lineno} {n}" for n in names if n.split(".")[0] in banned]
    assert not broken, "\n" + "\n".join(broken)


def test_no_banned_package_is_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    lines += (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    names = {
        re.split(r"[^A-Za-z0-9_.-]", line)[0].lower().replace("_", "-") for line in lines if not line.startswith("#")
    }
    assert not names & {package.replace("_", "-") for package in BANNED_PACKAGES}


def test_constraints_pin_exact_public_versions_of_every_dependency():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert not [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", pin)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    # Trackers are not in the environment that the tests were made with.
    extras = [d for name, listed in project["optional-dependencies"].items() if name not in TRACKERS for d in listed]
    wanted = [d for d in (*project["dependencies"], *extras) if not d.startswith("thinkdraw[")]
    pinned = {pin.partition("==")[0].lower() for pin in pins}
    assert not [name for d in wanted if (name := re.split(r"[<>=]", d)[0].lower()) not in pinned]


def test_no_code_from_strings_or_pickles_is_run():
    broken = []
    for file in FILES:
        for node in ast.walk(tree_of(file)):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if name in ("eval", "exec", "builtins.eval", "builtins.exec"):
                broken.append(f"{file.relative_to(ROOT)}:{node.lineno} {name}(: parse the value instead")
            if keywords.get("trust_remote_code", "False") != "False":
                broken.append(f"{file.relative_to(ROOT)}:{node.lineno} trust_remote_code: runs code from a download")
            if name == "torch.load" and keywords.get("weights_only") != "True":
                broken.append(f"{file.relative_to(ROOT)}:{node.lineno} torch.load: unpickles; use safetensors")
            if name in ("np.load", "numpy.load") and keywords.get("allow_pickle", "False") != "False":
                broken.append(f"{file.relative_to(ROOT)}:{node.lineno} allow_pickle: use safetensors or parquet")
    assert not broken, "\n" + "\n".join(broken)


def test_the_command_line_starts_without_importing_torch_or_transformers():
    if not (PACKAGE / "cli").exists():
        pytest.skip("thinkdraw/cli does not exist yet")
    code = "import sys, thinkdraw.cli; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    reply = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SRC)}
    )
    assert reply.returncode == 0, reply.stderr
    assert reply.stdout.strip() == "[]", f"import thinkdraw.cli pulls in {reply.stdout.strip()}; import inside the verb"


def test_every_text_file_is_read_and_written_in_a_named_encoding():
    """Without one the locale chooses: a run on another machine would read other texts."""
    broken = []
    for file in FILES:
        for node in ast.walk(tree_of(file)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute | ast.Name):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            named = any(keyword.arg == "encoding" for keyword in node.keywords)
            mode = next(
                (a.value for a in node.args[:2] if isinstance(a, ast.Constant) and isinstance(a.value, str)), ""
            )
            is_text = name == "read_text" and not node.args
            is_text |= name == "open" and isinstance(node.func, ast.Name) and "b" not in mode and len(node.args) < 3
            is_text |= name == "open" and bool(re.fullmatch("[rwax]t?[+]?", mode))
            if is_text and not named:
                broken.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not broken, f'give encoding="utf-8": {broken}'
