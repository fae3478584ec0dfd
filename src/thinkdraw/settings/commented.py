"""A configuration as YAML that explains itself, as `--dry-run` prints it."""

import textwrap
from collections.abc import Iterator, Mapping

import yaml
from pydantic import BaseModel

from thinkdraw.runtime.formats import YamlDumper

WIDEST = 120  # columns
INDENT = "  "


def commented_yaml(config: BaseModel) -> str:
    """Write YAML that loads to an equal configuration, with explanations.

    Each description stands above its setting. A value that is not the default is marked, with the default where there
    is room. A section of the same settings as an earlier one points there.
    """
    return "\n".join(_section(config, None, "", {})) + "\n"


def _section(
    section: BaseModel, usual: BaseModel | None, key: str, described: dict[type, str], indent: str = ""
) -> Iterator[str]:
    """Write the lines of a section.

    usual: what it is by default, where that is of the same class. key: where it is, dotted. described: class of each
    section that was described, and where.
    """
    model = type(section)
    is_new = model not in described
    place = described.setdefault(model, key)
    if not is_new and place != key:
        yield f"{indent}# What these settings do is said above, at {place}."
    for name, field in model.model_fields.items():
        value = getattr(section, name)
        default: object = ...
        if isinstance(usual, model):
            default = getattr(usual, name)
        elif not field.is_required():
            default = field.get_default(call_default_factory=True)
        if is_new and field.description:
            yield from textwrap.wrap(
                field.description, WIDEST, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ",
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip
        yield from _setting(name, value, default, f"{key}.{name}".lstrip("."), described, indent)


def _setting(
    name: str, value: object, default: object, key: str, described: dict[type, str], indent: str
) -> Iterator[str]:
    """Write the lines of one setting, its name and its value."""
    deeper = indent + INDENT
    if isinstance(value, BaseModel):
        yield f"{indent}{_text(name)}:"
        yield from _section(value, default if isinstance(default, BaseModel) else None, key, described, deeper)
    elif isinstance(value, list | tuple) and value and all(isinstance(each, BaseModel) for each in value):
        yield f"{indent}{_text(name)}:"
        for each in value:
            yield from _item(list(_section(each, None, key, described, deeper + INDENT)), deeper)
    elif isinstance(value, Mapping) and value and all(isinstance(each, BaseModel) for each in value.values()):
        yield f"{indent}{_text(name)}:"
        for inner, each in value.items():
            yield from _setting(str(inner), each, ..., key, described, deeper)
    else:
        plain = _plain(value)
        yield from _lines(
            name, plain, "" if default is ... or _plain(default) == plain else _text(_plain(default)), indent
        )


def _lines(name: str, plain: object, default: str, indent: str) -> list[str]:
    """Write a setting that is no section. default: as text, "" if it is the value."""
    line = f"{indent}{_text(name)}: {_text(plain)}"
    if "\n" in line or len(line) > WIDEST:
        block = yaml.dump({name: plain}, Dumper=YamlDumper, sort_keys=False, allow_unicode=True, width=WIDEST - 20)
        return [indent + each for each in block.splitlines()]
    for note in (f"  # default: {default}", "  # not the default") if default else ():
        if "\n" not in note and len(line + note) <= WIDEST:
            return [line + note]
    return [line]


def _item(lines: list[str], indent: str) -> Iterator[str]:
    """Put a dash before the first line of a list's item that is no comment."""
    first = next(number for number, line in enumerate(lines) if not line.lstrip().startswith("#"))
    lines[first] = f"{indent}- {lines[first][len(indent) + 2 :]}"
    return iter(lines)


def _plain(value: object) -> object:
    """Reduce a value to what JSON has, as `dump_config` does."""
    return _Holder(value=value).model_dump(mode="json")["value"]


class _Holder(BaseModel):
    value: object


def _text(value: object) -> str:
    """Write YAML on one line, if the value has no line breaks of its own."""
    text = yaml.dump(
        value, Dumper=YamlDumper, sort_keys=False, allow_unicode=True, width=10**6, default_flow_style=True
    )
    return text.removesuffix("\n").removesuffix("\n...")
