"""Flags of version 0.1, each rewritten as `key=value`.

They go on working until the next release. Remove this file, and its call in `verb_group.py`, with that release.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thinkdraw.errors import UserError, printable


@dataclass(frozen=True)
class OldFlag:
    """How a flag is written now.

    key: the setting that it became. num_values: words behind the flag.
    is_list: the flag could be repeated, and all its values are one list now.
    is_number: the value is a number; otherwise it is text, and quoted where YAML would read something else.
    rewrite: writes the flag's value as settings or targets, where key=value does not do.
    """

    key: str = ""
    num_values: int = 1
    is_list: bool = False
    is_number: bool = False
    rewrite: Callable[[str], list[str]] | None = None


def _judge(text: str) -> list[str]:
    role, equals, value = text.partition("=")
    if not equals or not role.strip():
        raise UserError(f"--judge {text!r} is not ROLE=NAME or ROLE.KEY=VALUE. Write judges.detector=mask2former.")
    return [f"judges.{role}={value}"]


def _targets(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _scales(text: str) -> list[str]:
    return [f"scales=[{text}]"]


def _best_of(text: str) -> list[str]:
    return [f"best_of={'null' if text == '0' else text}"]


def _text(*keys: str) -> dict[str, OldFlag]:
    return {_flag(key): OldFlag(key) for key in keys}


def _number(*keys: str) -> dict[str, OldFlag]:
    return {_flag(key): OldFlag(key, is_number=True) for key in keys}


def _switch(*keys: str) -> dict[str, OldFlag]:
    return {_flag(key): OldFlag(key, num_values=0) for key in keys}


def _flag(key: str) -> str:
    return "--" + key.rpartition(".")[2].replace("_", "-")


def _each(prefix: str) -> OldFlag:
    return OldFlag(rewrite=lambda text: [f"{prefix}{text}"])


_SAMPLING = {
    "--thought": OldFlag("sampling.thought"),
    "--guidance-scale": OldFlag("sampling.guidance_scale", is_number=True),
    "--temperature": OldFlag("sampling.temperature", is_number=True),
}
SHORT_WITH_VALUE = ("-p", "--prompt", "-o", "--out", "-n", "--count")
# Verb → flag → how it is written now.
OLD_FLAGS: dict[str, dict[str, OldFlag]] = {
    "quickstart": _number("seed"),
    "generate": {
        **_number("samples", "guidance_scale", "temperature", "seed"),
        **_text("thought", "device"),
    },
    "eval": {
        **_SAMPLING,
        **_text("prompts", "images", "split", "vqa", "export_official", "import_official", "device", "precision"),
        **_number("samples", "seed", "questions_per_type", "latency_pictures", "max_no_verdict_frac", "chunk"),
        "--benchmark": OldFlag(rewrite=_targets),
        "--judge": OldFlag(rewrite=_judge),
        "--set": _each("settings."),
        "--pictures": _each("pictures."),
        "--compare": OldFlag("compare", num_values=2, is_list=True),
    },
    "thoughts": {**_number("samples", "seed"), "--guidance-scale": _SAMPLING["--guidance-scale"]},
    "check": _text("device", "precision"),
    "compare": {
        "--best-of": OldFlag(rewrite=_best_of),
        "--reward": OldFlag("reward"),
        "--axis": OldFlag("axes", is_list=True),
        "--allow": OldFlag("allow", is_list=True),
        "--set": _each(""),
    },
    "sample": {
        **{flag: _SAMPLING[flag] for flag in ("--thought", "--guidance-scale")},
        **_text("prompts", "device", "precision"),
        **_number("group_size", "seed"),
        "--reward": OldFlag("rewards", is_list=True),
    },
    "score": _text("reward", "name", "policy", "device"),
    "store info": {},
    "store export": {**_text("policy"), **_switch("png", "jsonl", "skip_damaged")},
    "plan": {**_text("gpu"), **_number("gpus", "prompt_tokens")},
    "serve": {**_text("host", "token_env"), **_number("port", "max_batch")},
    "prompts make": {
        **_text("style"),
        **_number("seed"),
        "--scales": OldFlag(rewrite=_scales),
        "--against": OldFlag("against", is_list=True),
        "--endpoint": OldFlag("paraphrase.base_url"),
        "--model": OldFlag("paraphrase.model"),
        "--key-env": OldFlag("paraphrase.key_env"),
    },
    "prompts check": {"--against": OldFlag("against", is_list=True)},
    "corpus show": _number("seed"),
    "corpus tokenise": {
        **_text("policy", "device"),
        "--ground": OldFlag("pictures.ground"),
        "--max-megapixels": OldFlag("pictures.max_megapixels", is_number=True),
    },
}


def translate(verb: str, words: Sequence[str]) -> list[str]:
    """Rewrite old flags in a verb's words, and print the new form on standard error."""
    flags = OLD_FLAGS.get(verb, {})
    remaining: list[str] = []
    typed: list[str] = []
    rewritten: list[str] = []
    lists: dict[str, list[str]] = {}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word == "--":
            remaining += [word, *queue]
            break
        name, equals, attached = word.partition("=")
        if name not in flags:
            remaining.append(word)
            if word in SHORT_WITH_VALUE:  # its value is no flag, whatever it looks like
                remaining += queue[:1]
                queue = queue[1:]
            continue
        flag = flags[name]
        values = [attached] if equals else queue[: flag.num_values]
        queue = queue if equals else queue[flag.num_values :]
        if len(values) < flag.num_values:
            raise UserError(f"{name} needs a value. It is written {flag.key or name.strip('-')}=VALUE now.")
        typed += [name, *values]
        if flag.is_list:
            lists.setdefault(flag.key, []).extend(values)
        else:
            rewritten += _rewrite(flag, values)
    rewritten += [f"{key}=[{', '.join(_quoted(value) for value in values)}]" for key, values in lists.items()]
    if typed:
        new = " ".join(_for_shell(word) for word in rewritten)
        old = " ".join(_for_shell(word) for word in typed)
        print(
            printable(f"thinkdraw: {old} is written {new} now; the old form goes with the next release."),
            file=sys.stderr,
        )
    return [*rewritten, *remaining] if "--" in remaining else [*remaining, *rewritten]


def _rewrite(flag: OldFlag, values: Sequence[str]) -> list[str]:
    if flag.num_values == 0:
        return [f"{flag.key}=true"]
    if flag.rewrite:
        return flag.rewrite(values[0])
    return [f"{flag.key}={values[0] if flag.is_number else _quoted(values[0])}"]


def _quoted(text: str) -> str:
    """Quote a text where YAML would read something else, or several list items."""
    from thinkdraw.runtime.formats import parse_yaml

    try:
        is_plain = parse_yaml(text) == text and not set(text) & set("[]{},")
    except ValueError:
        is_plain = False
    return text if is_plain else json.dumps(text)


def _for_shell(word: str) -> str:
    return f"'{word}'" if set(word) & set(' []{}"*?&;|$<>()') else word
