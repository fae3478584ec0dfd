"""The settings of a target, one by one, read from its JSON schema."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.settings.schema import read_schema
from thinkdraw.settings.words import placeholder, sections_in, type_in_words


@dataclass(frozen=True)
class Setting:
    """One setting of a target.

    key: dotted, below the target; N stands for a place in a list, NAME for a name. kind: its type in plain words.
    default: the value it has if nothing sets it; meaningless if `required`. variant: the `kind=` of the section it is
    in, "" where the section has no variants. sections: names of the sections that it holds.
    """

    key: str
    kind: str
    default: object
    required: bool
    description: str
    variant: str = ""
    sections: tuple[str, ...] = ()

    @property
    def plain_key(self) -> str:
        """The key without N and NAME, as a person would ask for it."""
        return ".".join(part for part in self.key.split(".") if part not in ("N", "NAME"))


def settings_of(target: str) -> list[Setting]:
    """List all settings of a target, a section's right after the setting itself."""
    schema = read_schema(target)
    return list(_settings(schema, schema.get("$defs", {}), "", None, ""))


def _settings(
    section: JsonMapping, sections: JsonMapping, prefix: str, defaults: object, variant: str
) -> Iterator[Setting]:
    """List the settings of a section. defaults: the section's own, if it has any."""
    required = section.get("required", ())
    for name, schema in section["properties"].items():
        default = schema.get("default")
        if isinstance(defaults, Mapping) and name in defaults:
            default = defaults[name]
        names = sections_in(schema)
        yield Setting(
            prefix + name, type_in_words(schema), default, name in required, schema.get("description", ""), variant,
            tuple(names),
        )  # fmt: skip
        for inner in names:
            kind = _variant(sections[inner]) if len(names) > 1 else ""
            inherited = default if not kind or _is_of(default, sections[inner]) else None
            yield from _settings(sections[inner], sections, f"{prefix}{name}.{placeholder(schema)}", inherited, kind)


def _variant(section: JsonMapping) -> str:
    """Name the `kind=` by which a section is told apart from others in its place."""
    kind: JsonObject = section["properties"].get("kind", {})
    return f"kind={kind['const']}" if "const" in kind else ""


def _is_of(default: object, section: JsonMapping) -> bool:
    return isinstance(default, Mapping) and f"kind={default.get('kind')}" == _variant(section)
