"""From a name to what it stands for: the plain dicts of the rooms, or a dotted path `pkg.mod:Class` of the user's own."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from thinkdraw.errors import UserError
from thinkdraw.runtime.json_types import JsonMapping


def find(kind: str, registry: Mapping[str, str], name: str) -> Callable[..., Any]:
    """The class or function that `name` stands for. kind: what it is, for errors: "reward", "judge".

    registry: name → `pkg.mod:Class`, imported here and not before. Raises UserError for an unknown name and for a path
    that leads nowhere.
    """
    path = registry.get(name, name)
    if ":" not in path:
        near = difflib.get_close_matches(name, registry, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(registry))}."
        raise UserError(f"unknown {kind} {name!r}: {hint} A class of your own works as pkg.mod:Class.")
    module, _, attribute = path.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise UserError(f"{kind} {name!r}: cannot import {error.name}. Install it, or correct the path.") from error
    except AttributeError as error:
        raise UserError(f"{kind} {name!r}: {module} has no {attribute}. Correct the part after the colon.") from error


def make(kind: str, registry: Mapping[str, str], name: str, settings: JsonMapping) -> Any:
    """What `find` finds, called with the settings. Raises UserError for settings that it does not take."""
    maker = find(kind, registry, name)
    signature = inspect.signature(maker)
    try:
        signature.bind(**settings)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "no settings"
        raise UserError(f"{kind} {name!r}: {error}. It takes {takes}.") from error
    return maker(**settings)
