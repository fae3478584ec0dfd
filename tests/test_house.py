"""The house rules that a machine can check: which room imports which, and what is never used at all."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
PACKAGE = SRC / "thinkdraw"
FILES = sorted(PACKAGE.rglob("*.py"))

# From the ground up; a room imports rooms of lower floors only. Floor 0 and the roof are each one family.
FLOORS = [
    {"types", "images", "config", "errors", "version", "runtime"},
    {"objectives", "lab"},
    {"data"},
    {"policies", "judges"},
    {"rewards"},
    {"rollouts", "serve"},
    {"benchmarks", "search", "corpus"},
    {"training"},
    {"recipes"},
    {"studies", "planning", "make_lab"},
    {"cli", "commands", "report", "api", "__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# torchvision breaks transformers when its build and torch's differ; the others bring it along.
BANNED_PACKAGES = {"torchvision", "open_clip", "open-clip-torch", "timm"}
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle"}


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
    yield from imported_modules(
        ast.parse(file.read_text(encoding="utf-8")), parts[:-1] if is_package else parts, is_package
    )


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
    assert sorted(found) == ["thinkdraw.cli", "thinkdraw.judges.scorers.clip", "thinkdraw.rewards.rules"]


def test_no_file_imports_a_banned_package():
    banned = BANNED_PACKAGES | BANNED_MODULES
    tests = [f for f in (ROOT / "tests").rglob("*.py")]
    broken = []
    for file in [*FILES, *tests]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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
    extras = [dependency for listed in project["optional-dependencies"].values() for dependency in listed]
    wanted = [d for d in (*project["dependencies"], *extras) if not d.startswith("thinkdraw[")]
    pinned = {pin.partition("==")[0].lower() for pin in pins}
    assert not [name for d in wanted if (name := re.split(r"[<>=]", d)[0].lower()) not in pinned]


def test_no_code_from_strings_or_pickles_is_run():
    broken = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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
    if not (PACKAGE / "cli.py").exists():
        pytest.skip("thinkdraw/cli.py does not exist yet")
    code = "import sys, thinkdraw.cli; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    reply = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SRC)}
    )
    assert reply.returncode == 0, reply.stderr
    assert reply.stdout.strip() == "[]", f"import thinkdraw.cli pulls in {reply.stdout.strip()}; import inside the verb"
