"""One reader for each file format, with errors of one line that name the file.

What a text may hold is bounded before it is used. YAML is limited by the values that its aliases stand for, all nesting by
MAX_DEPTH.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from thinkdraw.errors import UserError, printable
from thinkdraw.runtime.json_types import JsonObject

if TYPE_CHECKING:
    from torch import Tensor

MAX_DEPTH = 64  # lists and mappings inside one another
MAX_YAML_BYTES = 1 << 20
MAX_YAML_VALUES = 100_000  # with every alias written out
MAX_SHOWN = 160  # characters of a library's own words
_NO_TEXT = re.compile("[\x00\ud800-\udfff]")


def one_line(error: BaseException, most: int = MAX_SHOWN) -> str:
    """Return an error's text for the middle of a sentence, or its type's name."""
    return printable(" ".join(str(error).split()))[:most].rstrip(". ") or type(error).__name__


@contextmanager
def name_file_in_errors(path: Path | str, way_out: str, kind: type[UserError] = UserError) -> Iterator[None]:
    """Turn whatever a library raises about a file's content into one line naming it.

    way_out: a sentence on what to do. Only for blocks that do nothing but read: an error of other code would be blamed on the file.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise kind(f"{path} does not exist. {way_out}") from error
    except RecursionError as error:
        raise kind(f"{path} cannot be read: it is nested too deeply. {way_out}") from error
    except MemoryError as error:
        raise kind(f"{path} cannot be read: it asks for more memory than there is. {way_out}") from error
    except KeyError as error:
        raise kind(f"{path} cannot be used: it has no {error}. {way_out}") from error
    except Exception as error:  # a damaged file makes its reader raise anything
        raise kind(f"{path} cannot be read: {one_line(error)}. {way_out}") from error


# JSON


def parse_json(text: str | bytes, *, to_show: bool = False) -> Any:
    """Read JSON as it is defined. Raises ValueError.

    That excludes NaN, infinite numbers, half characters and nesting deeper than MAX_DEPTH. to_show: accept odd numbers and characters,
    for a reader that only shows them.
    """
    text = text.decode("utf-8", errors="replace" if to_show else "strict") if isinstance(text, bytes) else text
    try:
        value = json.loads(text) if to_show else json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    if not to_show and ("\\ud" in text or "\\uD" in text):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError("it holds half of a character, a surrogate without its other half") from error
    return value


def holds_value(text: bytes) -> bool:
    """Tell whether a text begins with a whole JSON value.

    A line that a killed process left unfinished does not.
    """
    try:
        json.JSONDecoder().raw_decode(text.decode("utf-8", errors="replace").lstrip())
    except (ValueError, RecursionError):
        return False
    return True


def read_json(path: Path | str, way_out: str, kind: type[UserError] = UserError) -> Any:
    """Read a JSON file. Raises `kind` naming it."""
    with name_file_in_errors(path, way_out, kind):
        return parse_json(Path(path).read_bytes())


def read_json_object(path: Path | str, way_out: str, kind: type[UserError] = UserError) -> JsonObject:
    """Read a JSON file that holds an object. Raises `kind` naming it."""
    if not isinstance(value := read_json(path, way_out, kind), dict):
        raise kind(f"{path} holds a {type(value).__name__}, not an object with names. {way_out}")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError(f"{digits[:40]} is too large a number")
    return number


def _depth(value: object) -> int:
    """Count the levels of lists and mappings.

    It goes level by level and not by recursion, so no depth is too deep to be counted.
    """
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


# YAML


class YamlLoader(yaml.SafeLoader):
    """Safe YAML for configurations.

    1e-4 is a number. off, on, yes, no and dates are words, because `off` is a thought format. Keys are unique texts.
    """

    def fetch_flow_collection_start(self, TokenClass: type[yaml.Token]) -> None:
        self._check_depth()  # before scanning on, because the scanner's time grows with the square of the depth
        super().fetch_flow_collection_start(TokenClass)

    def add_indent(self, column: int) -> bool:
        self._check_depth()
        return super().add_indent(column)

    def _check_depth(self) -> None:
        if self.flow_level + len(self.indents) > MAX_DEPTH:
            raise _not_yaml(f"nested more than {MAX_DEPTH} levels deep", self.get_mark())

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _not_yaml("a key that is no word", key.start_mark)
            if key.value in seen and key.value != "<<":
                raise _not_yaml(f"key {key.value!r} is given twice", node.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        number = super().construct_yaml_int(node)
        if not -(1 << 63) <= number < 1 << 63:
            raise _not_yaml("a number of more than 64 bits", node.start_mark)
        return number

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        number = super().construct_yaml_float(node)
        if not math.isfinite(number):
            raise _not_yaml(f"{node.value} where a finite number is needed", node.start_mark)
        return number


def _not_yaml(problem: str, mark: yaml.Mark) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, mark)


_BOOL, _TIME = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"
_FLOAT_WITHOUT_DOT = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+")
YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in (_BOOL, _TIME)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# No setting is bytes, a set, a date or ordered pairs.
YamlLoader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if str(tag).rpartition(":")[2] not in ("binary", "set", "timestamp", "omap", "pairs")
}
YamlLoader.add_constructor("tag:yaml.org,2002:float", YamlLoader.construct_yaml_float)
YamlLoader.add_constructor("tag:yaml.org,2002:int", YamlLoader.construct_yaml_int)
YamlLoader.add_implicit_resolver(_BOOL, re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF"))


class YamlDumper(yaml.SafeDumper):
    """Quotes what YAML or `YamlLoader` would read as something other than a string."""


for _yaml_class in (YamlLoader, YamlDumper):
    _yaml_class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT_WITHOUT_DOT, list("-+0123456789"))


def parse_yaml(text: str) -> Any:
    """Read YAML; nothing in it is run.

    Raises ValueError in one line, also for a text that is too large or nested too deeply.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ValueError(f"it has {len(text):,} characters, and a configuration at most {MAX_YAML_BYTES:,}")
    try:
        loader = YamlLoader(text)
        try:
            if (node := loader.get_single_node()) is None:
                return None
            _measure(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(
            "not valid YAML: " + where + printable(" ".join(str(getattr(error, "problem", None) or error).split()))
        ) from error
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep") from error
    except (TypeError, AttributeError, OverflowError, IndexError) as error:  # PyYAML raises these for odd values
        raise ValueError(one_line(error)) from error


def read_yaml(path: Path | str, way_out: str, kind: type[UserError] = UserError) -> Any:
    """Read a YAML file as `parse_yaml` does. Raises `kind` naming it."""
    with name_file_in_errors(path, way_out, kind):
        with Path(path).open("rb") as file:
            data = file.read(MAX_YAML_BYTES + 1)
        return parse_yaml(data.decode("utf-8-sig"))


def read_yaml_object(path: Path | str, way_out: str, kind: type[UserError] = UserError) -> JsonObject:
    """Read a YAML file of `key: value` lines; an empty file gives {}.

    Raises `kind` naming it.
    """
    value = read_yaml(path, way_out, kind)
    if not isinstance(value, dict | None):
        raise kind(f"{path} holds a {type(value).__name__}, not a mapping: write it as `key: value` lines. {way_out}")
    return value or {}


def _measure(root: yaml.Node) -> None:
    """Raise YAMLError where aliases stand for too many values, or nesting is too deep.

    A few lines of aliases to aliases can stand for billions of values ("billion laughs"), and an alias can stand for itself.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, above: tuple[int, ...]) -> int:
        if id(node) in above:
            raise _not_yaml("an alias inside what it stands for", node.start_mark)
        if id(node) not in sizes:
            if len(above) > MAX_DEPTH:
                raise _not_yaml(f"nested more than {MAX_DEPTH} levels deep", node.start_mark)
            inner = [] if isinstance(node, yaml.ScalarNode) else node.value
            if isinstance(node, yaml.ScalarNode) and _NO_TEXT.search(node.value):
                raise _not_yaml("a character that no text has (NUL, or half of one)", node.start_mark)
            parts = [part for item in inner for part in (item if isinstance(item, tuple) else (item,))]
            sizes[id(node)] = 1 + sum(size(part, (*above, id(node))) for part in parts)
        if sizes[id(node)] > MAX_YAML_VALUES:
            raise _not_yaml(f"aliases that stand for more than {MAX_YAML_VALUES:,} values", node.start_mark)
        return sizes[id(node)]

    size(root, ())


# Parquet, safetensors, SQLite


def read_parquet(
    path: Path | str, way_out: str, columns: list[str] | None = None, kind: type[UserError] = UserError
) -> Any:
    """Read a `pyarrow.Table`. Raises `kind` naming the file.

    Pages are compared with their checksums where the file has them.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    # An open file, because pyarrow would take a folder `scores=1/` in a path for a partition. pyarrow's own kind of file, because
    # its threads may release it after this returns: releasing a Python file while Python shuts down aborts the process.
    with name_file_in_errors(path, way_out, kind), pa.OSFile(str(path)) as file:
        return pq.read_table(file, columns=columns, page_checksum_verification=True)


def read_safetensors(path: Path | str, way_out: str, kind: type[UserError] = UserError) -> dict[str, Tensor]:
    """Read tensors by name. Raises `kind` naming the file."""
    from safetensors.torch import load_file

    with name_file_in_errors(path, way_out, kind):
        return load_file(path)


def sqlite_problem(path: Path | str, error: Exception, contents: str) -> UserError:
    """Make the UserError for a failed use of an SQLite file.

    It says what is wrong, and the way out that loses nothing. contents: what the file holds, such as "paid verdicts".
    """
    message = str(error).lower()
    code = getattr(error, "sqlite_errorname", "") or ""
    if "FULL" in code or "disk is full" in message or "no space" in message:
        way_out = f"The disk is full: free space on it and go on. The {contents} in it are safe"
    elif "BUSY" in code or "LOCKED" in code or "locked" in message:
        way_out = "Another process uses it: wait for that process, or stop it"
    elif isinstance(error, OSError) or "READONLY" in code or "CANTOPEN" in code or "PERM" in code or "IOERR" in code:
        way_out = "Check that disk and the permissions, or choose another path on a local disk"
    else:
        way_out = f"It is damaged or belongs to another program: move it away, so that its {contents} are not lost, and start anew"
    return UserError(f"{path} cannot be used: {one_line(error)}. {way_out}.")
