"""Types and values of settings in plain words, from their JSON schema."""

import json
from collections.abc import Mapping

from thinkdraw.runtime.json_types import JsonMapping, JsonObject


def type_in_words(schema: JsonMapping) -> str:
    """Say what a setting may be: "a number ≥ 0, or null", "one of grpo, dapo", …"""
    if "const" in schema:
        return f"always {shown(schema['const'])}"
    if "enum" in schema:
        return f"one of {', '.join(map(shown, schema['enum']))}"
    if "$ref" in schema:
        return "a section"
    for union in ("anyOf", "oneOf"):
        if union in schema:
            kinds = list(dict.fromkeys(type_in_words(each) for each in schema[union]))
            return ", or ".join(kinds) if kinds[-1] == "null" else " or ".join(kinds)
    match schema.get("type"):
        case "boolean":
            return "true or false"
        case "integer":
            return f"a whole number{_range(schema)}"
        case "number":
            return f"a number{_range(schema)}"
        case "null":
            return "null"
        case "string":
            return "a path" if schema.get("format") == "path" else "a text"
        case "array":
            return _list_in_words(schema)
        case "object":
            return _mapping_in_words(schema)
    return "anything"


def shown(value: object) -> str:
    """Write a value as YAML would have it, on one line."""
    if isinstance(value, str):
        return value if value else '""'
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, float):
        text = f"{value:g}"
        return text if float(text) == value else repr(value)
    return json.dumps(value)


def sections_in(schema: JsonMapping) -> list[str]:
    """Name the sections that a setting may hold, by itself, in a list, or by name."""
    inner = [
        schema.get("items"),
        schema.get("additionalProperties"),
        *schema.get("anyOf", ()),
        *schema.get("oneOf", ()),
    ]
    names = [schema["$ref"].rpartition("/")[2]] if "$ref" in schema else []
    return names + [name for each in inner if isinstance(each, Mapping) for name in sections_in(each)]


def placeholder(schema: JsonMapping) -> str:
    """Name what stands before a section's keys: "N." in a list, "NAME." in a mapping."""
    for each in (schema, *schema.get("anyOf", ())):
        if each.get("type") == "array":
            return "N."
        if each.get("type") == "object":
            return "NAME."
    return ""


def _range(schema: JsonMapping) -> str:
    """Say the bounds of a number, with a space before them."""
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        text = f" from {shown(low)} to {shown(high)}"
    else:
        bounds = ((">", above), ("≥", low), ("<", below), ("≤", high))
        limits = [f"{sign} {shown(bound)}" for sign, bound in bounds if bound is not None]
        text = f" {' and '.join(limits)}" if limits else ""
    step = schema.get("multipleOf")
    return text + (f", a multiple of {step}" if step else "")


def _list_in_words(schema: JsonMapping) -> str:
    if "prefixItems" in schema:
        kinds = list(map(type_in_words, schema["prefixItems"]))
        return f"a list of {len(kinds)} {_plural(kinds[0])}" if len(set(kinds)) == 1 else f"a list: {', '.join(kinds)}"
    least = ", at least one" if schema.get("minItems") == 1 else ""
    items: JsonObject = schema.get("items", {})
    if "enum" in items:
        return f"a list of {', '.join(map(shown, items['enum']))}{least}"
    return f"a list of {_plural(type_in_words(items))}{least}"


def _mapping_in_words(schema: JsonMapping) -> str:
    names = schema.get("propertyNames", {}).get("enum")
    values = schema.get("additionalProperties")
    if not isinstance(values, Mapping) or not values:
        return "a mapping {name: value}"
    from_what = ", ".join(names) if names else "names"
    return f"a mapping from {from_what} to {_plural(type_in_words(values))}"


def _plural(kind: str) -> str:
    """Say the type of several values: "a number ≥ 0" → "numbers ≥ 0"."""
    for noun in ("whole number", "number", "path", "text", "section", "list", "mapping"):
        if kind == f"a {noun}" or kind.startswith(f"a {noun} "):
            return f"{noun}s{kind.removeprefix(f'a {noun}')}"
    return kind
