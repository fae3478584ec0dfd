"""Short forms of `key=value` that say the same as a longer key."""

import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from thinkdraw.runtime.formats import parse_yaml


def expand(model: type[BaseModel], override: str) -> str:
    """Write out a short form; any other override stays as it is.

    `thought=off` is `sampling.thought=off` where the configuration has a section `sampling` and no key `thought`.
    `reward=lab-judge` is `reward.name=lab-judge` where the section `reward` has a key `name`.
    `prompt_form={}. In detail:` needs no second quotes: where a key takes a text, braces are a part of it.
    """
    key, equals, raw = override.partition("=")
    key = key.strip()
    first = key.partition(".")[0]
    if first not in model.model_fields and "sampling" in model.model_fields:
        sections = _sections(model.model_fields["sampling"].annotation)
        key = f"sampling.{key}" if any(first in section.model_fields for section in sections) else key
    if equals and _has_name(model, key.split(".")) and _is_text(raw):
        key += ".name"
    if equals and _takes_text(model, key.split(".")) and _is_no_yaml_text(raw):
        raw = json.dumps(raw)
    return f"{key}{equals}{raw}"


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation allows: itself, or members of a union."""
    if get_origin(annotation) in (Union, UnionType):
        for kind in get_args(annotation):
            yield from _sections(kind)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


def _takes_text(model: type[BaseModel], keys: list[str]) -> bool:
    """Tell whether the keys lead to a setting that is a text, or null."""
    sections = [model]
    for number, key in enumerate(keys, 1):
        fields = [section.model_fields[key] for section in sections if key in section.model_fields]
        if number == len(keys):
            return any(field.annotation is str or _is_union_with_text(field.annotation) for field in fields)
        sections = [kind for field in fields for kind in _sections(field.annotation)]
    return False


def _is_union_with_text(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType) and str in get_args(annotation)


def _is_no_yaml_text(raw: str) -> bool:
    """Tell whether YAML reads braces as a mapping, or cannot read the value."""
    try:
        return "{" in raw and isinstance(parse_yaml(raw), dict)
    except ValueError:
        return "{" in raw


def _has_name(model: type[BaseModel], keys: list[str]) -> bool:
    """Tell whether the keys lead to a section with a key `name`."""
    sections = [model]
    for key in keys:
        fields = [section.model_fields[key] for section in sections if key in section.model_fields]
        sections = [kind for field in fields for kind in _sections(field.annotation)]
    return any("name" in section.model_fields for section in sections)


def _is_text(raw: str) -> bool:
    try:
        return isinstance(parse_yaml(raw), str)
    except ValueError:
        return False
