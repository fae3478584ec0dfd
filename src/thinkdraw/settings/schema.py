"""JSON schemas of all configurations, for editors and for `thinkdraw explain`."""

import json
from functools import cache
from pathlib import Path

from thinkdraw.recipes.catalog import CONFIGS, RECIPES
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.settings.catalog import TARGETS

FOLDER = CONFIGS / "schema"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def made_schema(name: str) -> JsonObject:
    """Make the schema of a target from its class, which is imported."""
    schema = TARGETS[name].open().model_json_schema()
    sections = schema.pop("$defs", {})
    for section in (schema, *sections.values()):
        # Pydantic's titles repeat the names. Docstrings of classes speak to programmers.
        section.pop("title", None)
        section.pop("description", None)
        for setting in section["properties"].values():
            setting.pop("title", None)
    if name in RECIPES:  # a YAML file says which recipe it is for, so that `train` finds the class
        schema["properties"]["recipe"] |= {"const": name, "default": name}
        schema["required"] = ["recipe", *schema.get("required", [])]
    return {"$schema": DIALECT, "title": f"thinkdraw {name}", "description": TARGETS[name].about} | schema | (
        {"$defs": sections} if sections else {}
    )  # fmt: skip


def as_text(schema: JsonObject) -> str:
    """Write a schema as the text of its file."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


@cache
def read_schema(name: str) -> JsonObject:
    """Read the shipped schema of a target; no configuration class is imported."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def write_schemas(folder: Path = FOLDER) -> None:
    """Write the schema of every target, each into a file of its own."""
    folder.mkdir(exist_ok=True)
    for former in folder.glob("*.json"):
        if former.stem not in TARGETS:
            former.unlink()
    for name in TARGETS:
        (folder / f"{name}.json").write_text(as_text(made_schema(name)), encoding="utf-8")
