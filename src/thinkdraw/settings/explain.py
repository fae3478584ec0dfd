"""`thinkdraw explain`: what a setting does, its type and its default."""

import difflib
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

from thinkdraw.errors import UserError, printable
from thinkdraw.recipes.catalog import shipped_configs
from thinkdraw.runtime.formats import read_yaml_object
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.settings.catalog import TARGETS
from thinkdraw.settings.makers import REGISTRIES, Maker, maker, registry
from thinkdraw.settings.reading import Setting, settings_of
from thinkdraw.settings.words import shown

Named = tuple[str, Setting]  # a target and one of its settings
WIDEST = 100  # columns of text that is read with ease
LONG = 60  # characters of a default from which on it has a line of its own


def explain(word: str) -> str:
    """Explain a target, a setting, a reward, a judge or a benchmark to a person.

    Raises UserError for what nothing is called.
    """
    if made := _maker(word):
        return _maker_text(word, made)
    target, _, key = _resolved(word).partition(".")
    if target in TARGETS and not key:
        return _target_text(target)
    matches = matching(word)
    if target in TARGETS:
        return _section_text(target, key, [setting for _, setting in matches])
    return "\n\n".join(_same_text(same) for same in _grouped(matches))


def overview() -> str:
    """Name everything that has settings, with a sentence for each."""
    width = max(map(len, TARGETS)) + 2
    lines = [f"{name:{width}}{target.about}" for name, target in TARGETS.items()]
    more = "thinkdraw explain grpo · grpo.clip_high · clip_high · reward.lab-detector · judge.vlm · benchmark.dpg"
    return "\n".join([*lines, "", more])


def as_rows(word: str) -> list[JsonObject]:
    """Explain the same to a program, a row for each setting. Raises UserError."""
    if made := _maker(word):
        return [asdict(parameter) for parameter in made.parameters]
    target, _, key = _resolved(word).partition(".")
    everything = target in TARGETS and not key
    matches = [(target, each) for each in settings_of(target)] if everything else matching(word)
    return [_row(name, setting) for name, setting in matches]


def matching(word: str) -> list[Named]:
    """Find the settings of that name, and all settings inside such a section.

    word: TARGET.key, or the end of a key, which may be of several targets. Raises UserError where there are none.
    """
    target, _, key = _resolved(word).partition(".")
    if target in TARGETS:
        matches = [(target, each) for each in settings_of(target) if _is_at_or_below(each, key)]
    else:
        matches = [
            (name, each)
            for name in TARGETS
            for each in settings_of(name)
            if f".{each.plain_key}".endswith(f".{_without_places(word)}")
        ]
    if not matches:
        raise UserError(_unknown(word))
    return matches


def _resolved(word: str) -> str:
    """Put the target in place of a shipped configuration, or of `evaluate`."""
    first, dot, rest = word.partition(".")
    if first not in TARGETS and first in shipped_configs():
        first = recipe_of(shipped_configs()[first])
    return ("eval" if first == "evaluate" else first) + dot + rest


def _without_places(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in ("N", "NAME") and not part.isdecimal())


def _is_at_or_below(setting: Setting, key: str) -> bool:
    key = _without_places(key)
    return setting.plain_key == key or setting.plain_key.startswith(f"{key}.")


def _unknown(word: str) -> str:
    """Say that a word names nothing, and what the nearest names are."""
    target, _, key = _resolved(word).partition(".")
    kinds = [f"{kind}.{name}" for kind in REGISTRIES for name in registry(kind)]
    if target in TARGETS:
        names = {f"{target}.{each.plain_key}" for each in settings_of(target)}
        leaf = key.rpartition(".")[2]
        nearest = sorted(n for n in names if n.rpartition(".")[2] == leaf) or difflib.get_close_matches(
            f"{target}.{key}", names, n=3, cutoff=0.5
        )
    else:
        names = {each.plain_key.rpartition(".")[2] for name in TARGETS for each in settings_of(name)}
        nearest = difflib.get_close_matches(word, [*names, *TARGETS, *kinds], n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(nearest[:3])}?" if nearest else f"Targets are {', '.join(TARGETS)}."
    return f"nothing to explain is called {printable(word)[:80]}. {hint}"


# Texts for a terminal


def _target_text(name: str) -> str:
    target = TARGETS[name]
    settings = [each for each in settings_of(name) if "." not in each.key]
    head = [f"{name}: {target.about}", f"    {target.command}"]
    if names := [config for config, path in shipped_configs().items() if recipe_of(path) == name]:
        head += _wrapped(f"shipped: {', '.join(names)}")
    texts = [_text(name, each, _inner_hint(name, each)) for each in settings]
    also = [other for other in TARGETS for each in settings_of(other) if each.key == name]
    tail = [f"Also a setting: {', '.join(f'{other}.{name}' for other in also)}."] if also else []
    return "\n\n".join(["\n".join(head), *texts, *tail])


def _section_text(target: str, key: str, settings: Sequence[Setting]) -> str:
    """Tell a setting, and all settings in it if it is a section."""
    key = _without_places(key)
    texts = []
    for setting in settings:
        is_it = setting.plain_key == key and not setting.sections
        texts.append("\n".join([_text(target, setting, ""), *(_shipped_lines([(target, setting)]) if is_it else ())]))
    return "\n\n".join(texts)


def _same_text(same: Sequence[Named]) -> str:
    """Tell a setting that several targets have once."""
    lines = [_text(*same[0], _inner_hint(*same[0]))]
    lines += () if same[0][1].sections else _shipped_lines(same)
    if others := [f"{target}.{setting.key}" for target, setting in same[1:]]:
        lines += _wrapped(f"The same: {', '.join(others)}.")
    return "\n".join(lines)


def _shipped_lines(same: Sequence[Named]) -> list[str]:
    """Say what the shipped configurations set, those of one value together."""
    values: dict[str, list[str]] = {}
    for target, setting in same:
        for config, value in shipped_values(target, setting.key) if setting.plain_key != "recipe" else ():
            values.setdefault(value, []).append(config)
    return [line for value, configs in values.items() for line in _wrapped(f"{value} in {', '.join(configs)}.")]


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _width(), initial_indent="    ", subsequent_indent="    ")


def _grouped(matches: Sequence[Named]) -> list[list[Named]]:
    """Put together what has the same type, default and description."""
    groups: dict[tuple[str, ...], list[Named]] = {}
    for target, setting in matches:
        what = (setting.kind, shown(setting.default), setting.description, setting.variant)
        groups.setdefault(what, []).append((target, setting))
    return list(groups.values())


def _text(target: str, setting: Setting, hint: str) -> str:
    """Tell a setting: name and default, then description and type, indented."""
    default = "required" if setting.required else shown(setting.default)
    is_short = len(default) <= LONG and not (setting.sections and default.startswith("{"))
    head = f"{target}.{setting.key}" + (f" ({setting.variant})" if setting.variant else "")
    head += (" (required)" if setting.required else f" = {default}") if is_short else ""
    lines = [setting.description, f"{setting.kind[0].upper()}{setting.kind[1:]}.{hint}"]
    if not is_short and not setting.sections:
        lines.append(f"By default {default}.")
    return "\n".join([head, *(part for line in lines for part in _wrapped(line))])


def _inner_hint(target: str, setting: Setting) -> str:
    return f" Its settings: thinkdraw explain {target}.{setting.key}" if setting.sections else ""


def _row(target: str, setting: Setting) -> JsonObject:
    row: JsonObject = {"setting": f"{target}.{setting.key}", "type": setting.kind, "required": setting.required}
    if not setting.required:
        row["default"] = setting.default
    return row | ({"variant": setting.variant} if setting.variant else {}) | {"description": setting.description}


def _width() -> int:
    return max(40, min(WIDEST, shutil.get_terminal_size().columns))


# Rewards, judges and benchmarks


def _maker(word: str) -> Maker | None:
    kind, _, name = word.partition(".")
    if kind in REGISTRIES and (name in registry(kind) or ":" in name):
        return maker(kind, name)
    return None


def _maker_text(word: str, made: Maker) -> str:
    lines = [word, *textwrap.indent(made.about, "    ").splitlines(), f"    ({made.path})"]
    for parameter in made.parameters:
        is_short = len(parameter.default) <= LONG and "\n" not in parameter.default
        default = f" = {parameter.default}" if parameter.default else " (required)"
        lines += [f"  {parameter.name}{default if is_short else ''}"]
        lines += _wrapped(f"{parameter.kind[0].upper()}{parameter.kind[1:]}.")
        lines += [] if is_short else _wrapped(f"By default: {parameter.default}")
    if any("a judge of the kind" in parameter.kind for parameter in made.parameters):
        lines.append("  A judge is named as in `thinkdraw list judges`, or is {name: …} with its settings.")
    return "\n".join([*lines, *([] if made.parameters else ["  It has no settings."])])


# What the shipped configurations say


@cache
def recipe_of(file: Path) -> str:
    """Read which recipe a shipped configuration names, without parsing it."""
    match = re.search(r"^recipe: *(\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else ""


def shipped_values(target: str, key: str) -> Iterator[tuple[str, str]]:
    """Find the shipped configurations that set a key; yields names and values."""
    for name, file in shipped_configs().items():
        if recipe_of(file) != target:
            continue
        value: object = read_yaml_object(file, "Restore it: install thinkdraw again.")
        for part in key.split("."):
            value = value[part] if isinstance(value, dict) and part in value else ...
        if value is not ...:
            yield name, shown(value)
