"""Rewards, judges and benchmarks with their settings, read from their source.

The source is parsed and not imported: what a shipped class takes is said without torch and without its libraries.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from thinkdraw.errors import UserError
from thinkdraw.runtime.registry import find
from thinkdraw.settings.words import shown

PACKAGE = Path(__file__).parent.parent
# Kind → its room and the name of its registry there.
REGISTRIES = {
    "reward": ("rewards", "REWARDS"),
    "judge": ("judges", "JUDGES"),
    "benchmark": ("benchmarks", "BENCHMARKS"),
}


PLAIN = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "Path": "a path",
    "dict": "a mapping {name: value}",
    "JsonMapping": "a mapping {name: value}",
    "JsonObject": "a mapping {name: value}",
    "Any": "anything",
    "object": "anything",
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of a class or function.

    kind: its type in plain words. default: as YAML has it, "" if it is required.
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
    setting, judge, _ = _usual_judges().get(name if kind == "reward" else "", ("", "", ""))
    made = _read(path, node, file)
    parameters = [replace(each, default=judge) if each.name == setting else each for each in made.parameters]
    return replace(made, parameters=tuple(parameters))


def _read(path: str, node: ast.ClassDef | ast.FunctionDef, file: Path) -> Maker:
    """Read what a class or function takes."""
    if isinstance(node, ast.FunctionDef):
        return Maker(path, ast.get_docstring(node) or "", tuple(_parameters(node, file)))
    constructor = _constructor(node, file)
    docs = [ast.get_docstring(node), constructor and ast.get_docstring(constructor[0])]
    about = "\n\n".join(text for text in docs if text) or ast.get_docstring(_tree(file)) or ""
    return Maker(path, about, tuple(_fields(node, file) if constructor is None else _taken(node, *constructor)))


@cache
def _usual_judges() -> dict[str, tuple[str, str, str]]:
    """Read which judge a reward gets if its configuration names none.

    Reward → (its setting for the judge, the judge's name, the judge's setting for a checkpoint).
    """
    constant = _assigned("USUAL_JUDGE", PACKAGE / "rewards" / "opening.py")
    assert constant is not None, "rewards/opening.py has no USUAL_JUDGE"
    return ast.literal_eval(constant[0])


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def _file(module: str) -> Path:
    place = PACKAGE.parent.joinpath(*module.split("."))
    return place / "__init__.py" if place.is_dir() else place.with_suffix(".py")


def _module(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


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
            definition, place = _definition(_module(file), ast.unparse(base))
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
    return [Parameter(each.arg, _kind(each.annotation, file), _value(default, file)) for each, default in pairs]


def _fields(node: ast.ClassDef, file: Path) -> list[Parameter]:
    """List the fields of a dataclass, which its constructor takes."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return []
    return [
        Parameter(each.target.id, _kind(each.annotation, file), _value(each.value, file))
        for each in node.body
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]


# What is written in the source, in plain words


def _kind(annotation: ast.expr | None, file: Path) -> str:
    """Say a type in plain words: "a number, or null", "one of mean, product"."""
    match annotation:
        case None:
            return "anything"
        case ast.Constant(value=None):
            return "null"
        case ast.Constant(value=str(text)):
            return _kind(ast.parse(text, mode="eval").body, file)
        case ast.BinOp(op=ast.BitOr()):
            kinds = list(dict.fromkeys(_kind(each, file) for each in _members(annotation)))
            known = [kind for kind in kinds if kind not in ("null", "anything")]
            return f"{' or '.join(known)}, or null" if "null" in kinds else " or ".join(known)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            return f"one of {', '.join(_value(each, file) for each in _elements(choices))}"
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=parts):
            return _kind(_elements(parts)[0], file)
        case ast.Subscript(value=ast.Name(id="Mapping" | "dict")):
            return "a mapping {name: value}"
        case ast.Subscript(value=ast.Name(id="Sequence" | "list" | "tuple" | "Iterable")):
            return "a list"
        case ast.Name(id=name) if name in PLAIN:
            return PLAIN[name]
        case ast.Name(id=name):
            return _named_kind(name, file)
    return ast.unparse(annotation)


def _named_kind(name: str, file: Path) -> str:
    """Say what a name in a type stands for: another type, or a judge's protocol."""
    if named := _assigned(name, file):
        return _kind(*named)
    try:
        definition, _ = _definition(_module(file), name)
    except (UserError, FileNotFoundError):
        return name
    is_judge = any(ast.unparse(each) == "runtime_checkable" for each in definition.decorator_list)
    return f"a judge of the kind {name}" if is_judge else f"a {name}"


def _members(union: ast.expr) -> list[ast.expr]:
    """List the types of `A | B | C`, in order."""
    return [*_members(union.left), *_members(union.right)] if isinstance(union, ast.BinOp) else [union]


def _elements(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple) else [node]


def _value(default: ast.expr | None, file: Path) -> str:
    """Write a default as YAML has it; a module's constant by its value."""
    if isinstance(default, ast.Name) and (constant := _assigned(default.id, file)):
        return _value(*constant)
    try:
        return "" if default is None else shown(ast.literal_eval(default))
    except ValueError:  # what is computed, or belongs to another package
        return ast.unparse(default) if default is not None else ""


def _assigned(name: str, file: Path) -> tuple[ast.expr, Path] | None:
    """Find what a module sets a name to, its own or one that it imports."""
    for node in _tree(file).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return node.value, file
        if not isinstance(node, ast.ImportFrom) or not node.module or not node.module.startswith("thinkdraw"):
            continue
        if name in {alias.name for alias in node.names}:
            return _assigned(name, _file(node.module))
    return None


def _imported_parameter(parameter: inspect.Parameter) -> Parameter:
    kind, default = parameter.annotation, parameter.default
    named = kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    kind = "anything" if kind is parameter.empty else PLAIN.get(named, named)
    return Parameter(parameter.name, kind, "" if default is parameter.empty else shown(default))
