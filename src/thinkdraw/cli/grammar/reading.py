"""The grammar of all verbs: `thinkdraw VERB TARGET… key=value…`.

Words become a typed configuration. A target is a positional word. It sets the key that the verb gives its place.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from thinkdraw.config import StrictModel, load_config
from thinkdraw.errors import UserError, printable
from thinkdraw.runtime.formats import parse_yaml

M = TypeVar("M", bound=BaseModel)
# A word is a setting if a key stands before its first "=". So a folder `runs/a=b` or a class with a checkpoint is a target.
_SETTING = re.compile(r"[A-Za-z_][\w.-]*\s*=")
MORE = "…"  # behind a target's key: it takes all words that follow


def read(
    model: type[M],
    words: Sequence[str] | None,
    targets: Sequence[str] = (),
    options: Mapping[str, object] | None = None,
) -> M:
    """Fill `model` from a verb's words and short options.

    A first word that is a YAML file gives settings that all others override.
    targets: keys that positional words set, in their order; `key…` takes all that follow. A key that is also set as key=value
    takes no word. options: key → value of a short option such as -o, None where it was not used. Raises UserError.
    """
    file, words = config_file(words)
    settings = overrides(words, targets, options)
    for target in (target.rstrip(MORE) for target in targets):
        field = model.model_fields.get(target)
        if (
            file is None
            and field is not None
            and field.is_required()
            and target not in {key.partition(".")[0] for key in keys_of(settings)}
        ):
            raise UserError(
                f"{target} is missing. {field.description or ''} `--help` shows the verb's form and an example."
            )
    return load_config(model, file, settings)


def config_file(words: Sequence[str] | None) -> tuple[Path | None, list[str]]:
    """Take a YAML file off the front of a verb's words.

    It has settings of the verb, which the other words override.
    """
    first = next(iter(words or ()), "")
    if first.endswith((".yaml", ".yml")) and not _SETTING.match(first):
        return Path(first).expanduser(), list(words or ())[1:]
    return None, list(words or ())


def overrides(
    words: Sequence[str] | None, targets: Sequence[str] = (), options: Mapping[str, object] | None = None
) -> list[str]:
    """Write words and options as `key=value`, for `load_config`.

    Raises UserError for a word too many, and for a key that is set twice.
    """
    names, settings = split(words)
    # Shells expand a ~ at the beginning of a word only, and not behind `out=`.
    settings = [_with_home(text) for text in settings]
    values: dict[str, object] = {}
    for target in targets:
        key = target.rstrip(MORE)
        if names and not keys_of(settings) & {key, key.partition(".")[0]}:
            values[key] = names if target.endswith(MORE) else names[0]
            names = [] if target.endswith(MORE) else names[1:]
    if names:
        raise UserError(
            f"{printable(names[0])!r} is one word too many. Settings are written key=value, and `--help` shows the verb's form."
        )
    values |= {key: value for key, value in (options or {}).items() if value is not None}
    written = [*(setting(key, value) for key, value in values.items()), *settings]
    counts = Counter(text.partition("=")[0].strip() for text in written)
    if twice := [key for key, count in counts.items() if count > 1]:
        raise UserError(f"{printable(twice[0])} is set twice, and only one value can count. Leave one of them out.")
    return written


def _with_home(text: str) -> str:
    key, _, value = text.partition("=")
    return f"{key}={Path(value).expanduser()}" if value == "~" or value.startswith("~/") else text


def split(words: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Split words into targets and settings, each in their order."""
    settings = [word for word in words or () if _SETTING.match(word)]
    return [word for word in words or () if not _SETTING.match(word)], settings


def keys_of(settings: Sequence[str]) -> set[str]:
    """Return the dotted keys that settings set."""
    return {text.partition("=")[0].strip() for text in settings}


def one_target(words: Sequence[str] | None, name: str, example: str) -> tuple[str, list[str]]:
    """Return the only word that is no setting, and the settings.

    Raises UserError where there is none, or more.
    """
    names, settings = split(words)
    if len(names) != 1:
        problem = f"{name} is missing" if not names else f"{printable(names[1])!r} is one word too many"
        raise UserError(f"{problem}. Example: {example}")
    return names[0], settings


def setting(key: str, value: object) -> str:
    """Write key=value such that YAML reads that very value."""
    return f"{key}={json.dumps(value, default=str, ensure_ascii=False)}"


def print_config(config: BaseModel) -> None:
    """Print a configuration as YAML, in answer to --dry-run."""
    from thinkdraw.settings.commented import commented_yaml

    print(commented_yaml(config), end="")


def named_config(words: Sequence[str] | None, out: Path | None, example: str) -> StrictModel:
    """Read the configuration that the first word names. Raises UserError."""
    from thinkdraw.recipes.catalog import read_config

    name, settings = one_target(words, "the name of a configuration", example)
    return read_config(name, overrides(settings, (), {"out": out}))


def value_of(settings: Sequence[str], key: str, default: object) -> object:
    """Return the value that the last setting of a key has, as YAML reads it."""
    values = [text.partition("=")[2] for text in settings if text.partition("=")[0].strip() == key]
    try:
        return parse_yaml(values[-1]) if values else default
    except ValueError:  # the configuration says so in its own words
        return None
