"""Configs: pydantic models from `defaults < YAML < key.sub=value`, and to YAML.

Every failure is a UserError of one line that names the key, the value, the rule and where it was set.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from thinkdraw.errors import UserError, printable
from thinkdraw.runtime.endpoints import mask_secrets, read_secret
from thinkdraw.runtime.files import atomic_write_text
from thinkdraw.runtime.formats import YamlDumper, parse_yaml, read_yaml_object
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.shorthand import expand


class StrictModel(BaseModel):
    """Base of every config section.

    Unknown keys and numbers that are not finite are errors, and a loaded config does not change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


M = TypeVar("M", bound=BaseModel)
MAX_SHOWN = 200  # characters of a value that is refused
_SECRET = re.compile(
    r"(?:.*[_-])?(?:api[_-]?key|authorization|secret|password|(?:access|auth|bearer)[_-]token)", re.IGNORECASE
)


def load_config(model_cls: type[M], path: Path | None, overrides: Sequence[str] = ()) -> M:
    """Fill a `model_cls` from its defaults, the YAML at `path`, and overrides.

    model_cls: a StrictModel, so that unknown keys are errors. overrides: "key.sub=value", value in YAML; a number addresses an item of a
    list that the YAML gives. A section given in part keeps the rest of its default, unless it chooses another variant of a tagged union.
    Raises UserError.
    """
    data = read_yaml_object(path, "Give the path of a YAML text file, and correct it.") if path is not None else {}
    overridden = [_apply_override(data, expand(model_cls, text)) for text in overrides]
    _refuse_secrets(data)
    try:
        return model_cls.model_validate(_fill_sections(model_cls, data))
    except ValidationError as error:
        raise UserError(_explain(model_cls, data, error, path, overridden)) from error


def dump_config(cfg: BaseModel) -> str:
    """Write YAML that `load_config` reads back to an equal config.

    Every default is spelt out.
    """
    return yaml.dump(cfg.model_dump(mode="json"), Dumper=YamlDumper, sort_keys=False, allow_unicode=True, width=100)


def save_config(cfg: BaseModel, path: Path | str) -> None:
    """Write `dump_config(cfg)` to `path`, all of it or nothing."""
    atomic_write_text(path, dump_config(cfg))


def _apply_override(data: JsonObject, text: str) -> str:
    """Set one key.sub=value in `data` and return the dotted key."""
    dotted, equals, raw = text.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise UserError(f"override {_shown(text)} is not of the form key.sub=value. Example: sampling.temperature=0.7")
    try:
        value = parse_yaml(raw)
    except ValueError as error:
        raise UserError(f"override {_shown(text)} is not valid YAML ({error}). Quote it.") from error
    target: Any = data
    for depth, key in enumerate(keys):
        place: Any = key
        if isinstance(target, list) and key.isdecimal() and int(key) < len(target):
            place = int(key)
        elif not isinstance(target, dict):
            section = ".".join(keys[:depth])
            raise UserError(
                f"override {_shown(text)}: {section} is {_shown(target)}, which has no {_shown(key)}. Override {section} itself."
            )
        if depth == len(keys) - 1:
            target[place] = value
        elif isinstance(target, dict):
            target = target.setdefault(place, {})
        else:
            target = target[place]
    return dotted.strip()


def _refuse_secrets(value: object, key: str = "") -> None:
    """Raise UserError for a password or an API key in a configuration.

    Configurations are written into run folders, which people share.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_secrets(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _refuse_secrets(inner, f"{key}.{number}")
    elif isinstance(value, str) and value:
        is_secret = _SECRET.fullmatch(key.rpartition(".")[2]) or mask_secrets(value) != value
        if not is_secret and key.endswith("_env"):
            read_secret(value, key)  # for its error about what is no variable's name
        if is_secret:
            raise UserError(
                f"config {key} holds a password or a key, which would be written down with the run. Put it into an "
                "environment variable, and name that one where the setting for it asks (api_key_env, key_env, token_env)."
            )


def _fill_sections(model_cls: type[BaseModel], data: JsonMapping) -> JsonObject:
    """Complete each section that `data` gives in part from the section's default.

    That default may differ from the defaults of the section's class.
    """
    filled = dict(data)
    for name, field in model_cls.model_fields.items():
        if isinstance(data.get(name), Mapping) and not field.is_required():
            default = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
            filled[name] = _merge(default, data[name])
    return filled


def _merge(default: Any, section: Any) -> Any:
    """Fill what `section` leaves open; another variant of a union gets nothing."""
    if not isinstance(default, BaseModel) or not isinstance(section, Mapping):
        return copy.deepcopy(section)
    tags = _tags(default)
    if any(section.get(name, tag) != tag for name, tag in tags.items()):
        return dict(section)
    # Only the fields that the default sets itself; validation gives the others their class's defaults.
    explicit = {name: getattr(default, name) for name in type(default).model_fields if name in default.model_fields_set}
    below = {name: getattr(default, name) for name in section if name in type(default).model_fields}
    return {**tags, **explicit, **{name: _merge(below.get(name), value) for name, value in section.items()}}


def _tags(section: BaseModel) -> JsonObject:
    """Return the fields with a single allowed value, which identify a union's variant."""
    fields = type(section).model_fields.items()
    return {
        n: getattr(section, n)
        for n, f in fields
        if get_origin(f.annotation) is Literal and len(get_args(f.annotation)) == 1
    }


def _explain(model_cls: type, data: dict, error: ValidationError, path: Path | None, overridden: Sequence[str]) -> str:
    """Describe the first problem in one line.

    Unknown keys come first, because a misspelt key often causes the other problems.
    """
    problems = error.errors(include_url=False)
    unknown = [p for p in problems if p["type"] in ("extra_forbidden", "invalid_key")]
    first = (unknown or problems)[0]
    dotted = _dotted(data, first)
    same_key = [p for p in problems if _dotted(data, p) == dotted]
    others = len({_dotted(data, p) for p in problems}) - 1
    more = f" ({others} more after this one)" if others else ""
    on_command_line = any(dotted == key or dotted.startswith(key + ".") for key in overridden)
    where = "on the command line" if on_command_line or path is None else f"in {path}"
    if unknown:
        return f"unknown config key {printable(dotted)[:MAX_SHOWN]} {where}: {_suggest(model_cls, dotted)}{more}"
    messages = list(dict.fromkeys(" ".join(p["msg"].removeprefix("Value error, ").split()) for p in same_key))
    if first["type"] == "missing":
        return f"config key {dotted} is required and not set. Set it in the YAML or as {dotted}=...{more}"
    if first["type"] == "value_error":
        return f"config {dotted + ': ' if dotted else ''}{messages[0]}{more}"
    rule = "; or ".join(message[0].lower() + message[1:] for message in messages)
    return f"config {dotted}={_shown(first['input'])} {where}: {rule}. Change that value.{more}"


def _shown(value: object) -> str:
    text = printable(repr(value))
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def _dotted(data: Any, problem: Any) -> str:
    """Return the key as a person would write it.

    pydantic's location also has the union members between keys; they are left out.
    """
    keys, location = [], problem["loc"]
    for depth, key in enumerate(location):
        is_index = isinstance(data, list) and isinstance(key, int) and key < len(data)
        if is_index or (isinstance(data, dict) and key in data):
            data = data[key]
            keys.append(str(key))
        elif problem["type"] == "missing" and depth == len(location) - 1:
            keys.append(str(key))
    return ".".join(keys)


def _suggest(model_cls: type, dotted: str) -> str:
    valid = sorted(set(_all_keys(model_cls)))
    parent, _, leaf = dotted.rpartition(".")

    def closeness(candidate: str) -> float:
        section, _, name = candidate.rpartition(".")
        likeness = difflib.SequenceMatcher(None, name, leaf).ratio()
        return likeness if section == parent else 0.95 * likeness  # the right word in the wrong section

    nearest = max(valid, key=closeness, default="")
    if nearest and closeness(nearest) >= 0.6:
        return f"did you mean {nearest}?"
    siblings = [key for key in valid if key.rpartition(".")[0] == parent] or valid
    return f"nearest is {nearest}; valid keys there: {', '.join(siblings)}."


def _all_keys(annotation: Any, prefix: str = "", seen: tuple[type, ...] = ()) -> Iterator[str]:
    """Yield the dotted names of all fields below `annotation`, unions and lists too."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation in seen:
            return
        for name, field in annotation.model_fields.items():
            yield prefix + name
            yield from _all_keys(field.annotation, f"{prefix}{name}.", (*seen, annotation))
    else:
        for inner in get_args(annotation):
            yield from _all_keys(inner, prefix, seen)
