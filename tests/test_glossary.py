"""The glossary names every word that the lab knows, and its picture shows each of them."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thinkdraw.lab.scenes import BACKGROUNDS, COLORS
from thinkdraw.lab.shapes import PLURALS, SHAPES, SIZES, TEXTURES
from thinkdraw.lab.specs import HELD_OUT_PAIRS, RELATIONS
from thinkdraw.lab.wording import HELD_OUT_OPENINGS, HELD_OUT_WORDINGS, NUMBERS, OPENINGS, SENTENCES, WORDINGS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
LAB = PAGE[PAGE.index("## The words of the lab") :]


def row(kind: str) -> list[str]:
    """The words of a row of the lab's table."""
    match = re.search(rf"^\| {kind} \| (.*) \|$", LAB, flags=re.MULTILINE)
    assert match, kind
    return re.split(r"[,;] ", match[1])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("shapes", SHAPES),
        ("colours", COLORS),
        ("sizes", SIZES),
        ("numbers", NUMBERS.values()),
        ("relations", RELATIONS),
        ("backgrounds", BACKGROUNDS),
    ],
)
def test_a_row_names_every_word_of_its_kind_and_no_other(kind: str, words):
    assert row(kind)[: len(words)] == list(words)
    assert len(row(kind)) == len(words) or kind in ("numbers", "relations")  # these two go on in other words


def test_patterns_other_wordings_and_openings_are_named():
    words = [texture for texture in TEXTURES if texture != "solid"]
    words += [wording for wordings in (*WORDINGS.values(), *HELD_OUT_WORDINGS.values()) for wording in wordings]
    words += [opening.replace(" {}", "") for opening in (*OPENINGS, *SENTENCES) if opening != "{}"]
    words += [opening.replace("{}", "…") for opening in HELD_OUT_OPENINGS]
    text = " ".join(LAB.split())
    assert [word for word in words if word not in text] == []


def test_plurals_that_do_not_end_in_s_alone_are_named():
    irregular = [plural for shape, plural in PLURALS.items() if plural != shape + "s"]
    assert irregular and all(plural in " ".join(row("plurals")) for plural in irregular)


def test_all_pairs_that_training_never_shows_are_listed():
    text = " ".join(LAB.split())
    listed = re.search(r"sixteen pairs: (.*?)\.", text)
    assert listed and set(listed[1].split(", ")) == {f"{color} {shape}" for shape, color in HELD_OUT_PAIRS}


def test_the_picture_shows_every_word_as_the_lab_draws_it(tmp_path: Path):
    script = runpy.run_path(str(ROOT / "bench" / "lab_words.py"))
    names = [name for name, _ in script["tiles"]()]
    assert names == [*SHAPES, *COLORS, "large", "small", "striped", "dotted", *BACKGROUNDS]
    script["write_sheet"](tmp_path / "words.png")
    drawn, shipped = (
        np.asarray(Image.open(file).convert("RGB")).astype(int)
        for file in (tmp_path / "words.png", ROOT / "docs" / "lab_words.png")
    )
    assert drawn.shape == shipped.shape and np.abs(drawn - shipped).mean() < 2  # letters may be drawn otherwise
