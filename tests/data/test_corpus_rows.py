import base64
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from thinkdraw.data import corpus_rows
from thinkdraw.data.corpus_rows import (
    CorpusReaderConfig,
    cut_at_sentence,
    draw_prompt,
    draw_rationale,
    flatten_texts,
    is_corpus,
    parse_cell,
    read_texts,
)
from thinkdraw.data.picture_bytes import bytes_of
from thinkdraw.picture_reader import UnreadableError, picture_size, read_picture

CELL = {
    "brief_caption": "brief.",
    "detailed_caption": "One. Two is longer. Three.",
    "augmented_prompts": {
        "short_caption": "plain.", "paraphrases": "['para one.', \"it's two\"]", "tags": ["red", "a cat"],
        "varied_captions": '["vary"]', "object_prompts": ["a cat", "a dog.", "a hat"],
    },
    "augmented_cots": {"step_by_step": "First.", "object_centric": ["Cat.", "Dog."], "region_descriptions": [], "tags": ["x"]},
}  # fmt: skip


def of_style(style, cell=CELL):
    return {draw_prompt(cell, (style,), np.random.default_rng(n)) for n in range(20)}


@pytest.mark.parametrize(
    ("style", "found"),
    [
        ("brief", {"brief"}), ("plain", {"plain"}), ("paraphrase", {"para one", "it's two"}), ("varied", {"vary"}),
        ("tags", {"red, a cat"}), ("objects", {"a cat, a dog and a hat"}),
    ],
)  # fmt: skip
def test_each_prompt_style_reads_its_field_without_a_full_stop(style, found):
    assert of_style(style) == found


def test_a_prompt_of_several_sentences_keeps_its_last_full_stop():
    dense = "a cup and a star on a cream background. the cup is below the star."
    assert of_style("brief", CELL | {"brief_caption": dense}) == {dense}


def test_styles_are_drawn_evenly_and_one_that_is_missing_is_not_drawn():
    rng = np.random.default_rng(0)
    drawn = [draw_prompt(CELL, ("plain", "tags", "varied"), rng) for _ in range(900)]
    assert all(250 < drawn.count(text) < 350 for text in ("plain", "red, a cat", "vary"))
    bare = CELL | {"augmented_prompts": None}
    assert of_style("tags", bare) == {"brief"}  # nothing else is there


@pytest.mark.parametrize(
    ("style", "text"),
    [("dense", "One. Two is longer. Three."), ("step_by_step", "First."), ("objects", "Cat. Dog."),
     ("regions", "One. Two is longer. Three.")],
)  # fmt: skip
def test_each_rationale_style_reads_its_field_and_the_dense_one_stands_in(style, text):
    rng = np.random.default_rng(0)
    assert draw_rationale(CELL, CorpusReaderConfig(rationales=(style,)), rng) == text


def test_a_style_tag_says_which_rationale_it_is():
    found = draw_rationale(CELL, CorpusReaderConfig(rationales=("objects",), style_tags=True), np.random.default_rng(0))
    assert found == "<object_centric> Cat. Dog."


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("['a', 'b']", ["a", "b"]), ('["a", "b"]', ["a", "b"]), ("('a',)", ["a"]), ("plain text", ["plain text"]),
        ("[not closed", ["[not closed"]), (None, []), (["a", None, 3, " "], ["a"]), ("[" * 9000, ["[" * 9000]),
        ([{"region": "top", "text": "sky"}], ["region: top", "text: sky"]),
    ],
)  # fmt: skip
def test_lists_are_read_in_any_spelling(value, found):
    assert flatten_texts(value) == found


def test_nothing_in_a_row_is_run(tmp_path):
    trap = f"[__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()]"
    assert parse_cell(trap) == trap and not (tmp_path / "ran").exists()
    assert "eval(" not in Path(corpus_rows.__file__).read_text().replace("literal_eval(", "")


@pytest.mark.parametrize(
    ("limit", "cut"),
    [(100, "One. Two is longer. Three."), (20, "One. Two is longer."), (18, "One."), (4, "One."), (3, None)],
)
def test_a_long_rationale_ends_at_a_sentence(limit, cut):
    assert cut_at_sentence("One. Two is longer. Three.", lambda text: len(text) <= limit) == cut


def test_a_decimal_point_ends_no_sentence():
    assert cut_at_sentence('It is 3.5 m "high." More', lambda text: len(text) < 24) == 'It is 3.5 m "high."'


def write(folder: Path, rows: list[dict], name: str = "a.parquet") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder


def test_what_cannot_be_used_is_counted_and_left_out(tmp_path):
    rows = [
        CELL,
        CELL | {"detailed_caption": "word " * 50 + "."},
        CELL | {"detailed_caption": "Short. " + "word " * 50},
        CELL | {"detailed_caption": None},
        CELL | {"brief_caption": "", "augmented_prompts": None},
        CELL | {"brief_caption": "long " * 50, "augmented_prompts": None},
    ]
    write(tmp_path / "c", rows)
    texts = read_texts(tmp_path / "c", CorpusReaderConfig(), lambda t: len(t) <= 40, lambda t: len(t) <= 40, seed=0)
    assert [t.row for t in texts.rows] == [0, 2] and texts.rows[1].thought == "Short."
    assert texts.counts == {
        "truncated": 1, "rationale does not fit": 1, "no rationale": 1, "no prompt": 1, "prompt does not fit": 1,
    }  # fmt: skip
    dropping = CorpusReaderConfig(over_long="drop")
    assert len(read_texts(tmp_path / "c", dropping, lambda t: len(t) <= 40, lambda t: len(t) <= 40, seed=0).rows) == 1


def test_a_row_may_be_drawn_several_times_and_the_seed_decides(tmp_path):
    write(tmp_path / "c", [CELL] * 6)
    read = lambda seed: read_texts(tmp_path / "c", CorpusReaderConfig(draws=4), lambda t: True, lambda t: True, seed)  # noqa: E731
    first = [t.prompt.text for t in read(0).rows]
    assert len(first) == 24 and first == [t.prompt.text for t in read(0).rows] != [t.prompt.text for t in read(1).rows]


def test_a_corpus_is_told_by_its_columns(tmp_path):
    assert is_corpus(write(tmp_path / "a", [CELL])) and is_corpus(write(tmp_path / "b" / "data", [CELL]).parent)
    assert is_corpus(tmp_path / "a" / "a.parquet")
    assert not is_corpus(write(tmp_path / "c", [{"prompt": "a", "thought": "b"}]))
    assert not is_corpus(tmp_path / "nowhere") and not is_corpus(tmp_path / "rows.jsonl")
    (tmp_path / "broken.parquet").write_text("no parquet")
    assert not is_corpus(tmp_path / "broken.parquet")


def test_a_picture_comes_as_bytes_struct_data_uri_or_base64():
    buffer = io.BytesIO()
    Image.fromarray(np.full((3, 5, 3), 7, dtype=np.uint8)).save(buffer, format="PNG")
    data = buffer.getvalue()
    text = base64.b64encode(data).decode()
    for cell in (
        data,
        {"bytes": data, "path": "x"},
        "data:image/png;base64," + text,
        text,
        text[:40] + "\n" + text[40:],
    ):
        found = bytes_of(cell)
        assert found and read_picture(found).shape == (3, 5, 3) and picture_size(found) == (5, 3)
    assert bytes_of(None) is None and bytes_of({"bytes": None}) is None and bytes_of("") is None
    for broken in ("https://x/y.png", "data:image/png;base64,@@"):
        with pytest.raises(UnreadableError):
            bytes_of(broken)
    for broken in (data[:40], b"GIF89a", json.dumps({}).encode()):
        with pytest.raises(UnreadableError):
            read_picture(broken)


def test_the_form_of_the_hub_is_read_and_of_several_splits_train(tmp_path):
    """`image` as `datasets` writes it, and a second split beside it."""
    png = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(png, format="PNG")
    row = {**CELL, "image": {"bytes": png.getvalue(), "path": "000.png"}, "longIB_captions": None}
    (tmp_path / "data").mkdir()
    for split, rows in (("train", [row, row]), ("test", [row])):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    assert is_corpus(tmp_path)
    texts = read_texts(tmp_path, CorpusReaderConfig(prompts=("plain",)), lambda text: True, lambda text: True, seed=0)
    assert [(t.prompt.text, t.thought) for t in texts.rows] == [("plain", "One. Two is longer. Three.")] * 2
    (shard,) = corpus_rows.shards_of(tmp_path)
    assert bytes_of(next(corpus_rows.read_rows(shard, ("image",)))["image"]) == png.getvalue()
