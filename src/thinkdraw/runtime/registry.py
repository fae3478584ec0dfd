"""Finds the class behind a name: a registry's entry, or a user's `pkg.mod:Class`.

A configuration may come from a stranger. What its paths name is called only if it looks like what the caller needs. Importing a
module runs its code, though: modules are imported from installed packages and from the current folder, never from downloads.
"""

import difflib
import importlib
import inspect
import os
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from thinkdraw.errors import OwnCodeError, UserError

_PACKAGE = Path(__file__).resolve().parents[1]

# Kind → methods; an installed package's class must have one of them to be called.
METHODS = {
    "reward": ("__call__",),
    "judge": ("answer", "score", "detect", "write", "depth", "color_of", "log_likelihood", "first_words", "__call__"),
    "benchmark": ("judge",),
    "policy": ("load",),
    "tracker": ("log",),
    "callback": ("on_start", "on_step", "on_save", "on_end"),
}


def find(kind: str, registry: Mapping[str, str], name: str) -> Callable[..., Any]:
    """Find the class or function that `name` stands for.

    kind: what it is, such as "reward" or "judge", for errors. registry: name → `pkg.mod:Class`, imported only when found here. A user's
    own path may lead into an installed package or into the current folder. Raises UserError for an unknown name and for a path that
    leads nowhere.
    """
    path = registry.get(name, name)
    if ":" not in path:
        near = difflib.get_close_matches(name, registry, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(registry))}."
        raise UserError(f"unknown {kind} {name!r}: {hint} A class of your own works as pkg.mod:Class.")
    module, _, attribute = path.partition(":")
    if name not in registry:
        _refuse_standard(kind, name, module)
    try:
        imported = _import(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{kind} {name!r}: cannot import {error.name}, which is neither installed nor in {os.getcwd()}. Install it, "
            "correct the path, or go to its folder."
        ) from error
    except (Exception, SystemExit) as error:  # a user's module may raise anything when it is imported
        if name in registry or isinstance(error, UserError):
            raise
        raise UserError(
            f"{kind} {name!r}: importing {module} raised {type(error).__name__}: {error}. Mend it."
        ) from error
    if not callable(maker := getattr(imported, attribute, None)):
        has = (
            f"no {attribute}" if maker is None else f"a {type(maker).__name__} as {attribute}, and no class or function"
        )
        raise UserError(
            f"{kind} {name!r}: {module} ({getattr(imported, '__file__', 'built in')}) has {has}. Correct the path. An "
            "installed module comes before one in the current folder."
        )
    if name not in registry:
        _refuse_other_things(kind, name, maker)
    return maker


def _refuse_standard(kind: str, name: str, module: str) -> None:
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(
            f"{kind} {name!r}: {module} belongs to Python's own library, which has no {kind}, and was not called. Give a "
            f"known name, or a class of your own as my_pkg.mine:MyClass."
        )


def _refuse_other_things(kind: str, name: str, maker: Callable[..., object]) -> None:
    """Raise UserError unless `maker` is a class or factory of the right kind.

    So `torch:save` is never called with a file's name. A user's own file in the current folder may hold any factory.
    """
    module = str(getattr(maker, "__module__", None) or "")
    _refuse_standard(kind, name, module)
    if module.partition(".")[0] == "thinkdraw" or _is_in_current_folder(module):
        return
    if inspect.isclass(maker):
        methods = METHODS.get(kind, ())
        if any(method in vars(base) for base in maker.__mro__ for method in methods):
            return
        rule = f"a class with {' or '.join(methods)}"
    else:
        try:
            signature = inspect.signature(maker)
        except (TypeError, ValueError):
            signature = inspect.Signature()
        returns = signature.return_annotation
        gives = returns if isinstance(returns, str) else getattr(returns, "__name__", "")
        if next(iter(signature.parameters), "") == "rollouts" or kind.title() in gives:
            return
        rule = f"a function of rollouts, or one annotated `-> {kind.title()}`"
    raise UserError(f"{kind} {name!r} is no {kind} and was not called. It has to be {rule}.")


def _is_in_current_folder(module: str) -> bool:
    file = getattr(sys.modules.get(module), "__file__", None)
    if not file or not (path := Path(file).resolve()).is_relative_to(Path.cwd().resolve()):
        return False
    # A virtual environment in the current folder holds installed packages, not the user's code.
    return not {"site-packages", "dist-packages"} & set(path.parts)


def is_own_code(file: Path | str) -> bool:
    """Tell whether a source file is the user's own.

    It is not if it belongs to this package, to an installed one, or to Python.
    """
    path = Path(file).resolve()
    theirs = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    theirs = [Path(found).resolve() for found in (*theirs, *site.getsitepackages(), site.getusersitepackages())]
    return path.is_file() and not any(path.is_relative_to(folder) for folder in (_PACKAGE, *theirs))


@contextmanager
def own_code(who: str, rule: str = "") -> Iterator[None]:
    """Report whatever the user's own code raises in one line.

    The line says which code it is (`who`), what it raised, and at which of its lines. rule: a sentence on what it has to do. Raises
    OwnCodeError; a UserError and Ctrl-C pass unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        lines = traceback.extract_tb(error.__traceback__)[1:]
        own = [line for line in lines if is_own_code(line.filename)] or lines
        where = f" ({Path(own[-1].filename).name} line {own[-1].lineno})" if own else ""
        message = " ".join(str(error).split())[:200]
        raise OwnCodeError(
            f"{who} raised {type(error).__name__}{f': {message}' if message else ''}{where}. Mend it. {rule}".rstrip()
        ) from error


def _import(module: str) -> ModuleType:
    """Import a module; the current folder comes last and hides no installed module."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()
    return importlib.import_module(module)


def make(kind: str, registry: Mapping[str, str], name: str, settings: Mapping[str, Any]) -> Any:
    """Call the class or function that `name` stands for with the settings.

    Raises UserError for settings that it does not take.
    """
    maker = find(kind, registry, name)
    signature = inspect.signature(maker)
    try:
        signature.bind(**settings)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no settings"
        raise UserError(f"{kind} {name!r}: {error}. It takes {takes}.") from error
    if name in registry:
        return maker(**settings)
    with own_code(f"{kind} {name}"):
        return maker(**settings)
