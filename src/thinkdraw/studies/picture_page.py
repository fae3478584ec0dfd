"""A page of an evaluation: pictures with prompts, thoughts and verdicts."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from thinkdraw.benchmarks.base import Report, Row, number_or_nan
from thinkdraw.benchmarks.picture_files import Inventory, read_picture_file
from thinkdraw.charts.style import STYLE
from thinkdraw.images import to_data_uri, to_pil
from thinkdraw.picture_reader import UnreadableError
from thinkdraw.runtime.files import atomic_write_bytes

PAGE = "pictures.html"
MOST = 32  # prompts
SIDE = 256  # pixels of a picture's longer side on the page
SMALL = 128  # up to so many a picture is kept exactly, and shown with its pixels' edges


class Shown(NamedTuple):
    """A picture on the page: a data URI, and what was said about it."""

    uri: str
    verdict: str
    thought: str
    reason: str


def write_picture_page(
    path: Path, report: Report, rows: Sequence[Row], inventory: Inventory, thoughts: Mapping[tuple[int, int], str]
) -> None:
    """Write pictures of up to `MOST` prompts, from the lowest to the highest score.

    The prompts are spread evenly over that order. Pictures that are missing or cannot be read are left out.
    thoughts: (prompt index, sample) → what was written before it was drawn, where that is known.
    """
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["prompt_index"], []).append(row)
    ranked = sorted(groups.values(), key=_mean_verdict)
    count = min(MOST, len(ranked))
    chosen = [ranked[place * len(ranked) // count] for place in range(count)]
    prompts = [
        {"text": group[0]["prompt"], "tag": group[0]["tag"], "pictures": shown}
        for group in chosen
        if (shown := [s for row in group if (s := _shown(row, inventory, thoughts))])
    ]
    environment = Environment(
        loader=PackageLoader("thinkdraw.studies"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    page = environment.get_template("pictures.html.j2").render(
        style=STYLE, label=report.label, overall=str(report.overall), prompts=prompts, total=len(ranked)
    )
    atomic_write_bytes(path, page.encode("utf-8", "replace"))


def _mean_verdict(group: Sequence[Row]) -> tuple[bool, float]:
    """Sort prompts by their mean; those without any verdict come first."""
    known = [value for row in group if (value := number_or_nan(row["verdict"])) == value]
    return bool(known), sum(known) / len(known) if known else 0.0


def _shown(row: Row, inventory: Inventory, thoughts: Mapping[tuple[int, int], str]) -> Shown | None:
    key = row["prompt_index"], row["sample"]
    file = inventory.files.get(key)
    try:
        pixels = read_picture_file(file, inventory.reading)[0] if file else None
    except UnreadableError:
        pixels = None
    if pixels is None:
        return None
    verdict = "no verdict" if row["verdict"] is None else f"{row['verdict']:.3g}"
    reason = str(row.get("problem") or row.get("reason") or "")
    if max(pixels.shape[:2]) <= SMALL:
        return Shown(to_data_uri(pixels), verdict, thoughts.get(key, ""), reason)
    image, buffer = to_pil(pixels), io.BytesIO()
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    image.save(buffer, format="JPEG", quality=88)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Shown(uri, verdict, thoughts.get(key, ""), reason)
