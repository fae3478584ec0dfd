"""docs/config.md: every setting of every recipe, study and verb."""

import re
from collections.abc import Iterator, Mapping, Sequence

from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.settings.catalog import TARGETS
from thinkdraw.settings.schema import read_schema
from thinkdraw.settings.words import sections_in, shown, type_in_words

INTRODUCTION = """\
# Settings

This page is written by `python -m thinkdraw.settings` from the descriptions in the code. The same texts answer

```text
thinkdraw explain grpo
thinkdraw explain grpo.clip_high
thinkdraw explain clip_high
thinkdraw explain reward.lab-detector
thinkdraw train lab_grpo --dry-run
```

The last one prints a resolved configuration as YAML, with what each setting does above it.

**Where a value comes from.** The defaults below, then a YAML file if it is the first word behind the verb, then
`key=value` on the command line. A dot leads into a section (`optimiser.learning_rate=2e-5`), a number to an item of a
list (`rounds.0.grpo=[max_steps=9]`). Lists and mappings are written as in YAML: `benchmarks=[geneval,dpg]`,
`reward={name: orm, settings: {questioner: policy}}`. An unknown key is an error that names the nearest known one.

**In an editor.** A JSON schema of each recipe lies beside the shipped configurations, in `thinkdraw/configs/schema/`. An
editor with the YAML language server (VS Code: the extension *YAML* by Red Hat) then completes keys and shows what they
do. In a YAML of your own, name the schema in a comment, by a path from that file or an absolute one:

```yaml
# yaml-language-server: $schema=/path/to/thinkdraw/configs/schema/grpo.json
recipe: grpo
```

`python -c "import thinkdraw.settings.schema as s; print(s.FOLDER)"` prints the folder.
"""
TRAINING = "Settings of every recipe that trains a policy"
HEAD = ("| setting | type | default | what it does |", "|---|---|---|---|")


def page() -> str:
    """Write the page: a table for each recipe, then the sections."""
    schemas = {name: read_schema(name) for name in TARGETS}
    shared = _shared_settings([schema for schema in schemas.values() if "optimiser" in schema["properties"]])
    sections: dict[str, JsonMapping] = {}
    for schema in schemas.values():
        sections |= schema.get("$defs", {})
    links = [f"[{name}](#{_anchor(name)})" for name in TARGETS]
    parts = [INTRODUCTION, f"Recipes, studies and verbs: {', '.join(links)}."]
    for name, schema in schemas.items():
        parts += [f"## {name}", f"{TARGETS[name].about} `{TARGETS[name].command}`."]
        rest = schema
        if "optimiser" in schema["properties"]:
            rest = schema | {"properties": {k: v for k, v in schema["properties"].items() if k not in shared}}
            parts.append(f"Besides, it has the [{TRAINING.lower()}](#{_anchor(TRAINING)}).")
        parts.append(_table(rest, sections))
    parts += [f"## {TRAINING}", _table({"properties": shared}, sections), "## Sections"]
    for name in sorted(sections):
        users = ", ".join(_users(name, schemas, sections))
        parts += [f"### {_title(name)}", f"In {users}.", _table(sections[name], sections)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _shared_settings(schemas: Sequence[JsonMapping]) -> JsonObject:
    """Find the settings that all of these have, with the same default."""
    first, *others = [schema["properties"] for schema in schemas]
    return {name: each for name, each in first.items() if all(other.get(name) == each for other in others)}


def _table(section: JsonMapping, sections: JsonMapping) -> str:
    required = section.get("required", ())
    lines = [_line(name, setting, name in required, sections) for name, setting in section["properties"].items()]
    return "\n".join([*HEAD, *lines])


def _line(name: str, setting: JsonMapping, is_required: bool, sections: JsonMapping) -> str:
    kind, inner = type_in_words(setting), sections_in(setting)
    if inner:
        links = " or ".join(f"[{_title(each)}](#{_anchor(_title(each))})" for each in inner)
        kind = re.sub(r"\bsections?\b", links, kind, count=1).replace("a [", "[")
    default = "required" if is_required else f"`{_default(setting, inner, sections)}`"
    cells = (f"`{name}`", kind, default.replace("``", ""), setting.get("description", ""))
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _default(setting: JsonMapping, inner: Sequence[str], sections: JsonMapping) -> str:
    """Write the default; of a section what differs from its class, "" if nothing."""
    default = setting.get("default")
    if len(inner) != 1 or not isinstance(default, Mapping) or "$ref" not in setting:
        return shown(default)
    own = {name: each.get("default") for name, each in sections[inner[0]]["properties"].items()}
    differing = {name: value for name, value in default.items() if own.get(name) != value}
    return shown(differing) if differing else ""


def _users(section: str, schemas: Mapping[str, JsonMapping], sections: JsonMapping) -> Iterator[str]:
    """List where a section is used: recipes and other sections, as links."""
    for name, schema in schemas.items():
        for key, setting in schema["properties"].items():
            if section in sections_in(setting):
                yield f"[{name}](#{_anchor(name)}).{key}"
    for name in sorted(sections):
        for key, setting in sections[name]["properties"].items():
            if section in sections_in(setting):
                yield f"[{_title(name)}](#{_anchor(_title(name))}).{key}"


def _title(section: str) -> str:
    """Say a section's name in words: OptimiserSettings → Optimiser settings."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", section).lower().replace(" config", " settings")
    return words[0].upper() + words[1:]


def _anchor(title: str) -> str:
    """Make the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
