"""A sample of a corpus as one HTML page: pictures inside, text escaped, no script."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.corpus.stats import check_corpus
from thinkdraw.data.corpus_rows import COLUMNS, flatten_texts, parse_cell, read_rows, shards_of
from thinkdraw.data.picture_bytes import bytes_of
from thinkdraw.images import to_data_uri, to_pil
from thinkdraw.picture_reader import UnreadableError, read_picture
from thinkdraw.runtime.files import atomic_write_bytes
from thinkdraw.runtime.json_types import JsonObject

MAX_SIDE = 320


class ShowConfig(StrictModel):
    """Which rows of a corpus are shown, and where."""

    folder: Path = Field(description="Folder of the corpus, or a .parquet file of one.")
    out: Path | None = Field(default=None, description="File of the page; null is sample.html in the corpus's folder.")
    count: int = Field(default=40, ge=1, description="Rows on the page, chosen at random; each adds about 10 kB.")
    seed: int = Field(default=0, ge=0, description="Seed by which the rows are chosen; another one shows other rows.")


@dataclass(frozen=True)
class PageRow:
    """A row on the page.

    picture: a data URI, or "" where `problem` says why there is none.
    """

    number: int
    id: str
    picture: str
    problem: str
    caption: str
    rationale: str
    prompts: dict[str, list[str]]
    rationales: dict[str, list[str]]


def write_page(folder: Path, out: Path, count: int, seed: int) -> Path:
    """Write `count` random rows, in the corpus's order. Raises UserError if none."""
    check_corpus(folder)
    total = sum(1 for shard in shards_of(folder) for _ in read_rows(shard, ("detailed_caption",)))
    chosen = set(np.random.default_rng(seed).permutation(total)[:count].tolist())
    rows, number = [], 0
    for shard in shards_of(folder):
        for cell in read_rows(shard, ("image", *COLUMNS)):
            if number in chosen:
                rows.append(_page_row(number, cell))
            number += 1
    environment = Environment(
        loader=PackageLoader("thinkdraw.corpus"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    page = environment.get_template("sample.html.j2").render(folder=str(folder), total=total, rows=rows)
    atomic_write_bytes(out, page.encode("utf-8", "replace"))
    return out


def _page_row(number: int, cell: JsonObject) -> PageRow:
    picture = problem = ""
    try:
        data = bytes_of(cell.get("image"))
        picture, problem = (_thumbnail(read_picture(data)), "") if data else ("", "no picture")
    except UnreadableError as error:
        problem = f"unreadable picture: {error}"
    prompts, cots = (parse_cell(cell.get(name)) for name in ("augmented_prompts", "augmented_cots"))
    return PageRow(
        number, str(cell.get("id") or ""), picture, problem, " ".join(flatten_texts(cell.get("brief_caption"))),
        " ".join(flatten_texts(cell.get("detailed_caption"))), _lists(prompts), _lists(cots),
    )  # fmt: skip


def _lists(value: object) -> dict[str, list[str]]:
    return {str(name): flatten_texts(texts) for name, texts in value.items()} if isinstance(value, dict) else {}


def _thumbnail(picture: np.ndarray) -> str:
    image = to_pil(picture)
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    return to_data_uri(np.asarray(image))
