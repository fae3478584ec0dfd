"""A prompt's noun chunks and tagged words, for T2I-CompBench's questions.

They come from a spaCy model where there is one, or from a file that such a model wrote elsewhere: JSON rows
{"prompt": "a green bench and a blue bowl", "chunks": ["a green bench", "a blue bowl"], "tokens": [["a", "DET"], …]}.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkdraw.data.prompt_files import text_of
from thinkdraw.data.text_files import json_rows, shorten, text_file, text_lines
from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_write_text
from thinkdraw.runtime.json_types import JsonObject

OFFICIAL_MODEL = "en_core_web_sm"


@dataclass(frozen=True)
class Parse:
    """A parsed prompt.

    chunks: noun chunks as they are in the prompt. tokens: (text, universal part of speech), () where not known.
    """

    chunks: tuple[str, ...]
    tokens: tuple[tuple[str, str], ...] = ()


class SpacyParser:
    """Parses with a spaCy model.

    `source` names the model with its version, because another version gives other questions. model: a package such as en_core_web_sm,
    T2I-CompBench's, or a folder. Raises UserError where it cannot be loaded.
    """

    def __init__(self, model: str = OFFICIAL_MODEL):
        try:
            import spacy  # type: ignore[import-not-found]

            self.nlp: Any = spacy.load(model)
        except ImportError as error:
            raise UserError(
                "noun chunks need spaCy: pip install spacy, then python -m spacy download en_core_web_sm; "
                "or give a file of chunks."
            ) from error
        except (OSError, ValueError) as error:
            raise UserError(
                f"spaCy model {model!r} cannot be loaded ({' '.join(str(error).split())[:120]}). "
                f"Install it with python -m spacy download {model}, or give a file of chunks."
            ) from error
        self.source = f"spacy:{self.nlp.meta.get('name', model)}-{self.nlp.meta.get('version', 'unknown')}"

    def __call__(self, prompt: str) -> Parse:
        doc = self.nlp(prompt)
        return Parse(tuple(c.text for c in doc.noun_chunks), tuple((t.text, t.pos_) for t in doc))


class ParseFile:
    """Looks prompts up in a file of JSON rows.

    `source` names the file with a short hash of its content. Raises UserError for a malformed row, for two different rows about a prompt,
    and for a prompt without a row.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self.rows: dict[str, Parse] = {}
        for line, row in json_rows(self.path):
            where = f"{self.path} line {line}"
            prompt, parse = text_of(row, "prompt", where).strip(), _parse_of(row, where)
            if self.rows.setdefault(prompt, parse) != parse:
                raise UserError(f"{where}: prompt {prompt[:60]!r} has another row with other chunks. Remove one.")
        digest = hashlib.sha256(text_file(self.path).encode()).hexdigest()
        self.source = f"{self.path.name}@{digest[:12]}"

    def __call__(self, prompt: str) -> Parse:
        if prompt not in self.rows:
            raise UserError(
                f"{self.path} has no row for prompt {prompt[:60]!r}. Add it, or give the name of a spaCy model."
            )
        return self.rows[prompt]


def open_parser(source: Path | str = OFFICIAL_MODEL) -> SpacyParser | ParseFile:
    """Open a file of chunks, or a spaCy model.

    It is a file where `source` is one or ends in .jsonl.
    """
    path = Path(source)
    return ParseFile(path) if path.is_file() or path.suffix == ".jsonl" else SpacyParser(str(source))


def write_parses(path: Path | str, prompts: Iterable[str], parse: Callable[[str], Parse]) -> None:
    """Write the rows that `ParseFile` reads, for machines without spaCy.

    There is one per distinct prompt.
    """
    atomic_write_text(path, "".join(_rows(prompts, parse)))


def read_objects(path: Path | str) -> list[tuple[str, str]]:
    """Read T2I-CompBench's new_objects.txt: (singular, plural) per line.

    They come in lower case and in the file's order. Raises UserError naming a line that is not "singular - plural".
    """
    objects = []
    for number, line in text_lines(Path(path)):
        if not line.strip():
            continue
        singular, dash, plural = line.partition(" - ")
        if not dash:
            raise UserError(f"{path} line {number} is {shorten(line)}, not of the form singular - plural. Correct it.")
        objects.append((singular.strip().lower(), plural.strip().lower()))
    if not objects:
        raise UserError(f"{path} names no object. Give T2I-CompBench's new_objects.txt.")
    return objects


def _rows(prompts: Iterable[str], parse: Callable[[str], Parse]) -> Iterator[str]:
    for prompt in dict.fromkeys(prompt.strip() for prompt in prompts):
        parsed = parse(prompt)
        row = {"prompt": prompt, "chunks": parsed.chunks, "tokens": parsed.tokens}
        yield json.dumps(row, ensure_ascii=False) + "\n"


def _parse_of(row: JsonObject, where: str) -> Parse:
    chunks, tokens = row.get("chunks"), row.get("tokens", [])
    if not _texts(chunks):
        raise UserError(f"{where}: `chunks` must be a list of texts. Correct it.")
    if not isinstance(tokens, list) or not all(_texts(token) and len(token) == 2 for token in tokens):
        raise UserError(f"{where}: `tokens` must be a list of [text, part of speech]. Correct it.")
    return Parse(tuple(chunks or ()), tuple((text, pos) for text, pos in tokens))


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
