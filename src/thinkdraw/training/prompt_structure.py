"""Structure for prompts of plain text, so that rewards of nouns, counts and relations have something to look at."""

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
# Settings of a judge that writes which say where and how fast it is asked, not what.
_WHERE = {"base_url", "key_env", "timeout_s", "max_concurrency", "concurrency", "retries", "backoff_s", "device"}
StructureBy = Literal["off", "rules", "spacy", "writer"]


def with_structure(
    prompts: Sequence[Prompt], by: StructureBy, settings: JsonMapping, cache: Path | None, source: str
) -> list[Prompt]:
    """The prompts, structure filled in where they bring none; those it is not found for are counted in a warning.

    settings: of the parser, see `open_parser`. cache: see `fill_structure`. source: of the prompts, for messages.
    Raises UserError where no prompt has any structure then.
    """
    if by == "off":
        return list(prompts)
    found = fill_structure(prompts, open_parser(by, settings), cache)
    if all(Structure.of(prompt) == Structure() for prompt in found.prompts):
        raise UserError(
            f"structure={by} finds none in the {len(prompts)} prompts of {source}. Rules read prompts of templates only: "
            "choose spacy or writer for others, or off."
        )
    if found.num_left:
        logger.warning(
            "%d of %d prompts of %s are without structure (structure=%s): rewards that read it say nothing of them",
            found.num_left, len(prompts), source, by,
        )  # fmt: skip
    return found.prompts


def open_parser(by: StructureBy, settings: JsonMapping) -> Parser:
    """settings: none for rules, `model` for spacy; for writer the name of a judge that writes, and that judge's settings."""
    taken = {"rules": set(), "spacy": {"model"}}
    if unknown := settings.keys() - taken.get(by, settings.keys()):
        raise UserError(f"structure_settings: {by} takes no {', '.join(sorted(unknown))}. Remove it.")
    if by == "rules":
        return RuleParser()
    if by == "spacy":
        return SpacyParser(**settings)
    asked = dict(settings)
    name = asked.pop("name", None)
    if not isinstance(name, str):
        raise UserError("structure=writer needs a judge that writes: structure_settings={name: openai, model: …}.")
    writer = open_judge(name, **asked)
    if not isinstance(writer, Writer):
        raise UserError(
            f"structure_settings.name={name} does not answer in words. Choose a judge that writes, such as vlm."
        )
    made_of = {key: value for key, value in asked.items() if key not in _WHERE}
    digest = content_digest([INSTRUCTION, AnyJudge(writer).revision, made_of])[:8]
    return WriterParser(writer, f"{name} {asked.get('model') or asked.get('path') or ''}".strip() + f" {digest}")
