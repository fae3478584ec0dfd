"""Reads a corpus of rationales for training.

It may be this project's or ReasonGen-R1's published one (arXiv 2505.24875). A row becomes a prompt in one of its styles and a
rationale in one of its own. Nothing in a row is run as code, and a row that cannot be used is counted and left out.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.data.prompt_files import prompt_of
from thinkdraw.errors import UserError
from thinkdraw.runtime.formats import name_file_in_errors
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt

PromptStyle = Literal["brief", "plain", "paraphrase", "tags", "objects", "varied"]
RationaleStyle = Literal["dense", "step_by_step", "objects", "regions"]
COLUMNS = ("brief_caption", "detailed_caption", "augmented_prompts", "augmented_cots", "id", "structure")
_KEY_OF_PROMPT = {"plain": "short_caption", "paraphrase": "paraphrases", "varied": "varied_captions"}
_KEY_OF_COT = {"step_by_step": "step_by_step", "objects": "object_centric", "regions": "region_descriptions"}
_TAG_OF = {
    "dense": "dense",
    "step_by_step": "step_by_step",
    "objects": "object_centric",
    "regions": "region_descriptions",
}
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*(?=\s|$)")
MAX_LITERAL = 200_000
PARQUET = "It has to be parquet: restore that file."


class CorpusReaderConfig(StrictModel):
    """How rows become examples. A style that a row does not have is not drawn for it."""

    prompts: tuple[PromptStyle, ...] = Field(
        default=("plain", "paraphrase", "tags", "objects", "varied"),
        min_length=1,
        description="Styles of prompt to train on, each drawn equally often; a style that a row lacks is not "
        "drawn for it.",
    )
    rationales: tuple[RationaleStyle, ...] = Field(
        default=("dense",),
        min_length=1,
        description="Styles of rationale to train on, each drawn equally often; a style that a row lacks is not "
        "drawn for it.",
    )
    style_tags: bool = Field(
        default=False,
        description="Begin each rationale with the tag of its style, such as <step_by_step>, so that the policy "
        "can be asked for one.",
    )
    draws: int = Field(default=1, ge=1, description="Examples made of each row, each with styles of its own.")
    over_long: Literal["truncate", "drop"] = Field(
        default="truncate",
        description="A rationale longer than max_thought_tokens: truncate ends it at a sentence, drop leaves the "
        "row out.",
    )


@dataclass(frozen=True)
class CorpusText:
    """An example without its picture. row: of the corpus, counted over all files."""

    row: int
    prompt: Prompt
    thought: str


@dataclass
class CorpusTexts:
    """Examples in order, and counts of what was truncated and why rows were left out."""

    rows: list[CorpusText] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def shards_of(path: Path) -> list[Path]:
    """List the parquet files of a corpus, in order.

    A corpus is a file, a folder of them, or a folder with `data/`. Where files are named after splits, as on the hub,
    they are those of `train`.
    """
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    shards = sorted((path / "data").glob("*.parquet")) or sorted(path.glob("*.parquet"))
    return [shard for shard in shards if re.match(r"train[-_.]", shard.name)] or shards


def is_corpus(path: Path) -> bool:
    """Tell whether the columns of the first file are those of a corpus."""
    shards = shards_of(path)
    try:
        names = set(pq.read_schema(shards[0]).names) if shards else set()
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return False
    return "detailed_caption" in names and bool({"brief_caption", "augmented_prompts"} & names)


def read_rows(shard: Path, columns: Sequence[str]) -> Iterator[JsonObject]:
    """Yield the rows of one file with the columns that it has.

    Few rows are in memory at a time. Raises UserError for a damaged file.
    """
    with ExitStack() as opened:
        with name_file_in_errors(shard, PARQUET):
            file = opened.enter_context(pq.ParquetFile(shard, page_checksum_verification=True))
            present = [name for name in columns if name in file.schema_arrow.names]
            batches = file.iter_batches(batch_size=100, columns=present)
        while True:
            with name_file_in_errors(shard, PARQUET):
                batch = next(batches, None)
                rows = batch.to_pylist() if batch is not None else []
            if batch is None:
                return
            yield from rows


def read_texts(
    path: Path, config: CorpusReaderConfig, thought_fits: Callable[[str], bool], prompt_fits: Callable[[str], bool], seed: int
) -> CorpusTexts:  # fmt: skip
    """Read prompts and thoughts of all rows.

    thought_fits, prompt_fits: whether a policy has room for a text.
    """
    texts = CorpusTexts()
    row = -1
    for shard in shards_of(path):
        for cell in read_rows(shard, COLUMNS):
            row += 1
            for draw in range(config.draws):
                rng = np.random.default_rng([seed, row, draw])
                _add_example(texts, row, cell, config, rng, thought_fits, prompt_fits)
    return texts


def _add_example(
    texts: CorpusTexts, row: int, cell: JsonObject, config: CorpusReaderConfig, rng: np.random.Generator,
    thought_fits: Callable[[str], bool], prompt_fits: Callable[[str], bool],
) -> None:  # fmt: skip
    prompt, thought = draw_prompt(cell, config.prompts, rng), draw_rationale(cell, config, rng)
    if not prompt or not thought:
        texts.counts["no rationale" if prompt else "no prompt"] += 1
    elif not prompt_fits(prompt):
        texts.counts["prompt does not fit"] += 1
    else:
        used = thought if thought_fits(thought) else None
        if used is None and config.over_long == "truncate":
            used = cut_at_sentence(thought, thought_fits)
            texts.counts["truncated"] += used is not None
        if used is None:
            texts.counts["rationale does not fit"] += 1
        else:
            texts.rows.append(CorpusText(row, _prompt(cell, prompt, row), used))


def parse_cell(value: Any) -> Any:
    """Parse a cell that may hold JSON or Python literals as text.

    Other cells are returned as they are. ReasonGen-R1's cells are Python literals, which `ast.literal_eval` reads without running code.
    """
    if not isinstance(value, str) or value.strip()[:1] not in ("[", "{", "(") or len(value) > MAX_LITERAL:
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return value


def flatten_texts(value: object) -> list[str]:
    """List the texts of a cell, each with single blanks.

    They are the items of a list, the values of a mapping, or the cell itself.
    """
    value = parse_cell(value)
    if isinstance(value, dict):
        items = [f"{k}: {v}" for k, v in value.items() if isinstance(v, str) and v.strip()]
    else:
        items = list(value) if isinstance(value, list | tuple) else [value]
    texts = [text for item in items for text in (flatten_texts(item) if isinstance(item, dict) else [item])]
    lines = [" ".join(text.split()) for text in texts if isinstance(text, str)]
    return [line for line in lines if line]


def draw_prompt(cell: JsonObject, styles: Sequence[PromptStyle], rng: np.random.Generator) -> str:
    """Draw a prompt of one style.

    It is the caption where the row has none of the styles, and "" where it has no caption either. A single sentence loses its full stop,
    as in ReasonGen-R1; a prompt of several sentences is left as it is.
    """
    augmented = _parse_mapping(cell.get("augmented_prompts"))
    choices = [texts for style in styles if (texts := _prompts(cell, augmented, style))]
    choices = choices or [flatten_texts(cell.get("brief_caption"))]
    of_style = choices[rng.integers(len(choices))]
    text = of_style[rng.integers(len(of_style))] if of_style else ""
    return text if len(_SENTENCE_END.findall(text)) > 1 else text.removesuffix(".")


def all_prompts(cell: JsonObject) -> list[str]:
    """List everything that `draw_prompt` can draw, of any style."""
    augmented = _parse_mapping(cell.get("augmented_prompts"))
    return [text for style in get_args(PromptStyle) for text in _prompts(cell, augmented, style)]


def _parse_mapping(value: object) -> JsonObject:
    mapping = parse_cell(value)
    return mapping if isinstance(mapping, dict) else {}


def _prompts(cell: JsonObject, augmented: JsonObject, style: PromptStyle) -> list[str]:
    if style == "brief":
        return flatten_texts(cell.get("brief_caption"))
    if style == "tags":
        return [", ".join(tags)] if (tags := flatten_texts(augmented.get("tags"))) else []
    if style == "objects":
        objects = [text.removesuffix(".") for text in flatten_texts(augmented.get("object_prompts"))]
        return [" and ".join((", ".join(objects[:-1]), objects[-1]) if objects[1:] else objects)] if objects else []
    return flatten_texts(augmented.get(_KEY_OF_PROMPT[style]))


def draw_rationale(cell: JsonObject, config: CorpusReaderConfig, rng: np.random.Generator) -> str:
    """Draw a rationale of one style.

    It is the dense one where the row has none of the styles, and "" where it has no dense one either.
    """
    augmented = _parse_mapping(cell.get("augmented_cots"))
    rationales: list[tuple[str, str]] = []
    for style in (*config.rationales, "dense"):
        value = cell.get("detailed_caption") if style == "dense" else augmented.get(_KEY_OF_COT[style])
        if (text := " ".join(flatten_texts(value))) and (style in config.rationales or not rationales):
            rationales.append((style, text))
    if not rationales:
        return ""
    style, text = rationales[rng.integers(len(rationales))]
    return f"<{_TAG_OF[style]}> {text}" if config.style_tags else text


def cut_at_sentence(text: str, fits: Callable[[str], bool]) -> str | None:
    """Return the longest beginning of whole sentences that fits, or None."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    low, high = 0, len(ends)
    while low < high:  # ends[:low] fit
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(text[: ends[middle - 1]]) else (low, middle - 1)
    return text[: ends[low - 1]] if low else None


def _prompt(cell: JsonObject, text: str, row: int) -> Prompt:
    id = str(cell.get("id") or f"{row:07d}")
    structure = parse_cell(cell.get("structure"))
    try:
        return prompt_of({**structure, "prompt": text, "id": id}, f"row {row}", row) if structure else Prompt(text, id)
    except (UserError, TypeError):
        return Prompt(text, id)  # a structure of another form says nothing
