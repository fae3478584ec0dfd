"""From a name to what it stands for: the plain dicts of the rooms, or a dotted path `pkg.mod:Class` of the user's own."""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from thinkdraw.errors import UserError


def find(kind: str, registry: Mapping[str, str], name: str) -> Callable[..., Any]:
    """The class or function that `name` stands for. kind: what it is, for errors: "reward", "judge".

    registry: name → `pkg.mod:Class`, imported here and not before. A path of the user's own may lead into an installed
    package or into the current folder. Raises UserError for an unknown name and for a path that leads nowhere.
    """
    path = registry.get(name, name)
    if ":" not in path:
        near = difflib.get_close_matches(name, registry, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(registry))}."
        raise UserError(f"unknown {kind} {name!r}: {hint} A class of your own works as pkg.mod:Class.")
    module, _, attribute = path.partition(":")
    try:
        found = _import(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"{kind} {name!r}: cannot import {error.name}, which is neither installed nor in {os.getcwd()}. Install it, "
            "correct the path, or go to its folder."
        ) from error
    except Exception as error:  # whatever a module of the user's own does when it is imported
        if name in registry or isinstance(error, UserError):
            raise
        raise UserError(
            f"{kind} {name!r}: importing {module} raised {type(error).__name__}: {error}. Mend it."
        ) from error
    if not callable(maker := getattr(found, attribute, None)):
        has = (
            f"no {attribute}" if maker is None else f"a {type(maker).__name__} as {attribute}, and no class or function"
        )
        raise UserError(
            f"{kind} {name!r}: {module} ({getattr(found, '__file__', 'built in')}) has {has}. Correct the path; what is "
            "installed comes before what is in the current folder."
        )
    return maker


def _import(module: str) -> ModuleType:
    """The module called so; the current folder is looked at last, so that it hides nothing that is installed."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()
    return importlib.import_module(module)


def make(kind: str, registry: Mapping[str, str], name: str, settings: Mapping[str, Any]) -> Any:
    """What `find` finds, called with the settings. Raises UserError for settings that it does not take."""
    maker = find(kind, registry, name)
    signature = inspect.signature(maker)
    try:
        signature.bind(**settings)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no settings"
        raise UserError(f"{kind} {name!r}: {error}. It takes {takes}.") from error
    return maker(**settings)
