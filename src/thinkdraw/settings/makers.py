"""Rewards, judges and benchmarks with their settings, read from their source.

The source is parsed and not imported: what a shipped class takes is said without torch and without its libraries.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.runtime.registry import find

PACKAGE = Path(__file__).parent.parent
# Kind → its room and the name of its registry there.
REGISTRIES = {
    "reward": ("rewards", "REWARDS"),
    "judge": ("judges", "JUDGES"),
    "benchmark": ("benchmarks", "BENCHMARKS"),
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a class or function.

    kind: its annotation. default: as it is written, "" if it is required.
    """

    name: str
    kind: str
    default: str


@dataclass(frozen=True)
class Maker:
    """A class or function that makes a reward, a judge or a benchmark."""

    path: str
    about: str
    parameters: tuple[Parameter, ...]


@cache
def registry(kind: str) -> dict[str, str]:
    """Read the registry of rewards, judges or benchmarks: name → `pkg.mod:Class`."""
    room, variable = REGISTRIES[kind]
    for node in _tree(PACKAGE / room / "__init__.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == variable:
            return ast.literal_eval(node.value)
    raise AssertionError(f"{room} has no {variable}")


def maker(kind: str, name: str) -> Maker:
    """Find what makes a reward, a judge or a benchmark. Raises UserError."""
    path = registry(kind).get(name)
    if path is None:  # a class of the user's own, which is imported; or a name that is unknown, which `find` says
        made = find(kind, registry(kind), name)
        parameters = inspect.signature(made).parameters.values()
        return Maker(name, inspect.getdoc(made) or "", tuple(_imported_parameter(each) for each in parameters))
    module, _, attribute = path.partition(":")
    node, file = _definition(module, attribute)
    if isinstance(node, ast.FunctionDef):
        return Maker(path, ast.get_docstring(node) or "", tuple(_parameters(node, file)))
    constructor = _constructor(node, file)
    docs = [ast.get_docstring(node), constructor and ast.get_docstring(constructor[0])]
    about = "\n\n".join(text for text in docs if text) or ast.get_docstring(_tree(file)) or ""
    return Maker(path, about, tuple(_fields(node) if constructor is None else _taken(node, *constructor)))


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _file(module: str) -> Path:
    place = PACKAGE.parent.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _definition(module: str, name: str) -> tuple[ast.ClassDef | ast.FunctionDef, Path]:
    """Find a class or function and its file, also if the module imports it."""
    file = _file(module)
    for node in _tree(file).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node, file
        if isinstance(node, ast.ImportFrom) and node.module and name in {a.asname or a.name for a in node.names}:
            return _definition(node.module, name)
    raise UserError(f"{module} defines no {name}. Correct the registry that names it.")


def _bases(node: ast.ClassDef, file: Path) -> Iterator[tuple[ast.ClassDef, Path]]:
    """Find the base classes in this package, with their files."""
    for base in node.bases:
        try:
            definition, place = _definition(
                ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts), ast.unparse(base)
            )
        except (UserError, FileNotFoundError):  # a protocol, or a class of another package
            continue
        if isinstance(definition, ast.ClassDef):
            yield definition, place


def _constructor(node: ast.ClassDef, file: Path) -> tuple[ast.FunctionDef, Path] | None:
    """Find the `__init__` of a class, its own or the first base's, and its file."""
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            return inner, file
    return next(filter(None, (_constructor(*base) for base in _bases(node, file))), None)


def _taken(node: ast.ClassDef, constructor: ast.FunctionDef, file: Path) -> list[Parameter]:
    """List the constructor's parameters, and its bases' if it passes `**` on."""
    parameters = _parameters(constructor, file)[1:]
    if constructor.args.kwarg is not None:
        names = {each.name for each in parameters}
        for inherited in filter(None, (_constructor(*base) for base in _bases(node, file))):
            parameters += [each for each in _parameters(*inherited)[1:] if each.name not in names]
    return parameters


def _parameters(function: ast.FunctionDef, file: Path) -> list[Parameter]:
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    pairs = [*zip(positional, [*missing, *arguments.defaults]), *zip(arguments.kwonlyargs, arguments.kw_defaults)]
    return [Parameter(each.arg, _text(each.annotation), _value(default, file)) for each, default in pairs]


def _value(default: ast.expr | None, file: Path) -> str:
    """Write a default as a person reads it: a module's constant by its value."""
    if isinstance(default, ast.Name):
        for node in _tree(file).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == default.id:
                return _text(node.value)
    return _text(default)


def _fields(node: ast.ClassDef) -> list[Parameter]:
    """List the fields of a dataclass, which its constructor takes."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return []
    return [
        Parameter(each.target.id, ast.unparse(each.annotation), _text(each.value))
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]


def _text(node: ast.expr | None) -> str:
    return "" if node is None else ast.unparse(node)


def _imported_parameter(parameter: inspect.Parameter) -> Parameter:
    kind, default = parameter.annotation, parameter.default
    named = "" if kind is parameter.empty else kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return Parameter(parameter.name, named, "" if default is parameter.empty else repr(default))
