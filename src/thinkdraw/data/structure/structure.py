"""Structure for prompts that have none, found by a parser and kept in a file.

Structure is nouns, attribute phrases, counts and a relation. The parsers: rules for templates (`by_templates.RuleParser`), the
user's spaCy model (`by_spacy.SpacyParser`), and anything that writes, an endpoint or a local model (`by_writer.WriterParser`).
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from thinkdraw.data.prompt_files import prompt_of, row_of
from thinkdraw.data.text_files import json_rows
from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_write_text
from thinkdraw.types import Prompt, Relation

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Structure:
    """The fields of `Prompt` that T2I-R1's training prompts have."""

    nouns: tuple[str, ...] = ()
    attributed: tuple[str, ...] = ()
    counts: tuple[tuple[str, int], ...] = ()
    relation: Relation | None = None

    @staticmethod
    def of(prompt: Prompt) -> "Structure":
        return Structure(prompt.nouns, prompt.attributed, prompt.counts, prompt.relation)

    def apply_to(self, prompt: Prompt) -> Prompt:
        """Return the prompt with this structure."""
        return replace(prompt, **vars(self))


class Parser(Protocol):
    """Maps texts to their structures, None where it finds none.

    name: of the parser and, where it has one, its model.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, texts: list[str]) -> Sequence[Structure | None]: ...


@dataclass(frozen=True)
class FillResult:
    """All prompts in order, and how many got a structure.

    num_filled: prompts for which a structure was found. num_left: prompts for which none was found.
    """

    prompts: list[Prompt]
    num_filled: int
    num_left: int


def fill_structure(
    prompts: Sequence[Prompt], parser: Parser, cache: Path | str | None = None, chunk: int = 64
) -> FillResult:
    """Give a structure to each prompt that has none, where the parser finds one.

    cache: a jsonl file of structures by parser and prompt text; what is there is not parsed again. It is written after every `chunk`
    texts, so that an interrupted run goes on where it was. Raises UserError for a file that is no such cache.
    """
    known = read_cache(Path(cache)) if cache is not None else {}
    bare = [prompt.text for prompt in prompts if Structure.of(prompt) == Structure()]
    unknown = [text for text in dict.fromkeys(bare) if (parser.name, text) not in known]
    if cache is not None and (stale := {text for _, text in known} & set(unknown)):
        logger.warning("%d structures in %s are of another parser or other settings: parsed again", len(stale), cache)
    for start in range(0, len(unknown), chunk):
        texts = unknown[start : start + chunk]
        structures = {(parser.name, t): s for t, s in zip(texts, parser(texts), strict=True) if s is not None}
        known |= structures
        if cache is not None and structures:
            write_cache(Path(cache), known)
    filled = [
        known.get((parser.name, p.text), Structure()).apply_to(p) if Structure.of(p) == Structure() else p
        for p in prompts
    ]
    num_left = sum(Structure.of(prompt) == Structure() for prompt in filled)
    return FillResult(filled, len(bare) - num_left, num_left)


StructureCache = dict[tuple[str, str], Structure]
"""(parser's name, text) → structure."""


def read_cache(path: Path) -> StructureCache:
    """Read what `write_cache` wrote; empty where there is no file."""
    known: StructureCache = {}
    for line, row in json_rows(path) if path.exists() else ():
        if not isinstance(row.get("parser"), str):
            raise UserError(
                f"{path} line {line} does not name its parser. Is it a cache of prompt structures? Remove it."
            )
        prompt = prompt_of(row, f"{path} line {line}", line)
        known[row["parser"], prompt.text] = Structure.of(prompt)
    return known


def write_cache(path: Path, known: StructureCache) -> None:
    """Write a row per text: `parser`, and the rest as `read_table` reads it."""
    rows = (
        {"parser": parser} | row_of(structure.apply_to(Prompt(text))) for (parser, text), structure in known.items()
    )
    atomic_write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
