"""Structure (nouns, counts, a relation) for prompts of plain text."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from thinkdraw.data.structure.by_spacy import SpacyParser
from thinkdraw.data.structure.by_templates import RuleParser
from thinkdraw.data.structure.by_writer import INSTRUCTION, WriterParser
from thinkdraw.data.structure.structure import Parser, Structure, fill_structure
from thinkdraw.errors import UserError
from thinkdraw.rewards.judges_of import AnyJudge
from thinkdraw.rewards.opening import open_judge
from thinkdraw.runtime.inputs.hashing import content_digest
from thinkdraw.runtime.json_types import JsonMapping
from thinkdraw.types import Prompt, Writer

logger = logging.getLogger(__name__)
# Settings of a judge that decide where and how fast it is asked, but not what it answers.
_WHERE = {"base_url", "key_env", "timeout_s", "max_concurrency", "concurrency", "retries", "backoff_s", "device"}
StructureBy = Literal["off", "rules", "spacy", "writer"]


def with_structure(
    prompts: Sequence[Prompt], by: StructureBy, settings: JsonMapping, cache: Path | None, source: str
) -> list[Prompt]:
    """Fill in the structure of prompts that bring none, for rewards that read it.

    A warning counts the prompts for which none is found.
    settings: of the parser, see `open_parser`. cache: see `fill_structure`. source: of the prompts, for messages.
    Raises UserError if no prompt has any structure in the end.
    """
    if by == "off":
        return list(prompts)
    filled = fill_structure(prompts, open_parser(by, settings), cache)
    if all(Structure.of(prompt) == Structure() for prompt in filled.prompts):
        raise UserError(
            f"structure={by} finds no structure in the {len(prompts)} prompts of {source}. Rules read only prompts of "
            "templates: choose spacy or writer for others, or off."
        )
    if filled.num_left:
        logger.warning(
            "%d of %d prompts of %s are without structure (structure=%s): rewards that read it say nothing of them",
            filled.num_left, len(prompts), source, by,
        )  # fmt: skip
    return filled.prompts


def open_parser(by: StructureBy, settings: JsonMapping) -> Parser:
    """Open the parser that finds structure.

    settings: none for rules; `model` for spacy; for writer the `name` of a judge that writes, and its settings.
    """
    taken = {"rules": set(), "spacy": {"model"}}
    if unknown := settings.keys() - taken.get(by, settings.keys()):
        raise UserError(f"structure_settings: structure={by} takes no {', '.join(sorted(unknown))}. Remove it.")
    if by == "rules":
        return RuleParser()
    if by == "spacy":
        return SpacyParser(**settings)
    judge_settings = dict(settings)
    name = judge_settings.pop("name", None)
    if not isinstance(name, str):
        raise UserError("structure=writer needs a judge that writes: structure_settings={name: openai, model: …}.")
    writer = open_judge(name, **judge_settings)
    if not isinstance(writer, Writer):
        raise UserError(
            f"structure_settings.name={name} does not answer in words. Choose a judge that writes, such as vlm."
        )
    made_of = {key: value for key, value in judge_settings.items() if key not in _WHERE}
    digest = content_digest([INSTRUCTION, AnyJudge(writer).revision, made_of])[:8]
    return WriterParser(
        writer, f"{name} {judge_settings.get('model') or judge_settings.get('path') or ''}".strip() + f" {digest}"
    )
