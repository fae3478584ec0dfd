"""What a folder in an official layout is taken for: nothing is cropped, renumbered, skipped or left out without a word."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.benchmarks.helpers import PixelDetector, geneval_prompt, pictures_of

from thinkdraw.benchmarks.base import Layout, PictureFile
from thinkdraw.benchmarks.compbench import files as compbench_files
from thinkdraw.benchmarks.dpg.benchmark import DpgBench
from thinkdraw.benchmarks.flow import report_on, score_pictures
from thinkdraw.benchmarks.geneval.benchmark import GenEval
from thinkdraw.benchmarks.geneval.files import find_pictures, write_prompt_folder
from thinkdraw.benchmarks.geneval2.benchmark import GenEval2
from thinkdraw.benchmarks.picture_files import PIXELS_AT_ONCE, by_reason, list_pictures, memory_batches, read_set
from thinkdraw.benchmarks.unigenbench.benchmark import UniGenBench
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import PictureReaderConfig
from thinkdraw.types import Prompt

DOGS = [geneval_prompt("dog", i) for i in range(3)]
ITEMS = [Prompt(f"a dog {i}", f"item{i}", "dpg") for i in range(3)]
NUMBERED = [Prompt(f"a dog {i}", str(i), "Style") for i in range(3)]


def lay(folder, *names, size=(8, 8)):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (1, 1, 1)).save(folder / name, "PNG")
    return folder


def names_of(layout):
    return {key: place.path.name for key, place in layout.files.items()}


def test_every_file_that_is_not_judged_has_its_reason(tmp_path):
    lay(
        tmp_path,
        "0/samples/0000.png",
        "0/samples/0.png",
        "0/samples/0001.jpg",
        "7/samples/0000.png",
        "loose.png",
        "0/grid.png",
    )
    inventory = list_pictures(tmp_path, find_pictures(tmp_path, DOGS), range(3), 1)
    assert inventory.extra == {
        "0/samples/0000.png": "a second file of one picture, beside 0.png",
        "0/samples/0001.jpg": "not named as expected, 00000/samples/0000.png",
        "7/samples/0000.png": "of prompts beyond the 3 there are",
        "loose.png": "not where the layout has pictures",
    }
    assert by_reason({"a": "x", "b": "y", "c": "x"}) == "2 x (a, c); 1 y (b)"


def test_prompts_numbered_from_one_are_refused_where_nothing_else_says_which_they_are(tmp_path):
    for layout, prompts, bench in (("{}/samples/0000.png", DOGS, GenEval()), ("{}_0.png", NUMBERED, UniGenBench())):
        folder = lay(tmp_path / bench.name, *(layout.format(i) for i in (1, 2, 3)))
        with pytest.raises(
            UserError, match=r"numbered 1 to 3, .* from 0: each picture would be judged by the next prompt"
        ):
            bench.official_pictures(folder, prompts, 1)
        (folder / layout.format(1)).rename(folder / "moved.png")
        lay(folder, layout.format(0))
        (folder / layout.format(3)).unlink()
        assert len(bench.official_pictures(folder, prompts, 1).files) == 2  # 0 and 2 may be a part


def test_that_folders_do_not_say_which_prompts_they_are_of_is_noted(tmp_path):
    write_prompt_folder(tmp_path, pictures_of(DOGS[0], 1))
    lay(tmp_path, "00001/samples/0000.png")
    assert find_pictures(tmp_path, DOGS).notes == [
        "1 folders have no metadata.jsonl: their numbers alone say which prompts they are of"
    ]


def test_pictures_of_a_prompt_that_are_numbered_from_one_are_taken_in_order_and_that_is_noted(tmp_path):
    folder = lay(tmp_path, *(f"{i}_{k}.png" for i in range(3) for k in (1, 2)))
    layout = UniGenBench().official_pictures(folder, NUMBERED, 2)
    assert names_of(layout)[0, 0] == "0_1.png" and sorted(layout.files) == [(i, k) for i in range(3) for k in (0, 1)]
    assert layout.notes == ["the pictures of a prompt are numbered from 1, not from 0 as in INDEX_K.png"]
    lay(folder, "0_0.png")  # now it is a gap and not another numbering
    assert not UniGenBench().official_pictures(folder, NUMBERED, 2).notes


def test_a_file_of_dpg_is_one_picture_where_one_is_asked_for_and_else_a_grid(tmp_path):
    folder = lay(tmp_path, "item0.png", "item1.jpg", "item1.png", "item9.png", "item2.gif", "item2.heic", "notes.txt")
    whole = DpgBench().official_pictures(folder, ITEMS, 1)
    assert set(whole.files.values()) == {PictureFile(folder / name) for name in ("item0.png", "item1.jpg", "item2.gif")}
    assert "read as one picture" in whole.notes[0] and "layout=grid" in whole.notes[0]
    grids = DpgBench().official_pictures(folder, ITEMS, 4)
    assert len(grids.files) == 12 and grids.files[0, 3] == PictureFile(folder / "item0.png", (1, 1))
    assert "read as a 2×2 grid" in grids.notes[0] and "samples=1" in grids.notes[0]
    assert {path.name: why for path, why in grids.left_out.items()} == {
        "item1.png": "a second file of one picture, beside item1.jpg", "item9.png": "of an item that is not in the table",
        "item2.heic": "not named as expected, ITEM_ID.png",
    }  # fmt: skip
    assert DpgBench(layout="grid").official_pictures(folder, ITEMS, 1).files[0, 0].cell == (0, 0)
    assert set(DpgBench(layout="single").official_pictures(folder, ITEMS, 4).files) == {(0, 0), (1, 0), (2, 0)}
    with pytest.raises(UserError, match="layout='wide' is unknown: choose auto, grid, single"):
        DpgBench(layout="wide")  # type: ignore


def test_one_picture_per_prompt_is_exported_alone_for_dpg_and_comes_back(tmp_path):
    DpgBench().export_official(tmp_path, ITEMS, [pictures_of(ITEMS[1], 7, index=1, size=6)])
    inventory = list_pictures(tmp_path, DpgBench().official_pictures(tmp_path, ITEMS, 1), [1], 1)
    assert read_set(1, ITEMS[1], inventory, 1).pictures.pictures[0].shape == (6, 6, 3)


def test_numbers_that_are_not_compbenchs_and_texts_that_are_no_prompt_are_said(tmp_path):
    prompts = [Prompt("a red apple", "0", "color"), Prompt("a green cup", "1", "color")]
    folder = lay(tmp_path, *(f"color/samples/{name}" for name in (
        "a red apple_10.png", "a red apple_2.png", "a green cup_2.png", "A green cup_3.png", "a green cup.png",
    )))  # fmt: skip
    layout = compbench_files.find_pictures(folder, prompts, 10)
    assert names_of(layout) == {(0, 0): "a red apple_2.png", (0, 1): "a red apple_10.png", (1, 0): "a green cup_2.png"}
    assert "are taken in the order of their numbers" in layout.notes[0]
    assert {path.name: why for path, why in layout.left_out.items()} == {
        "A green cup_3.png": "of a text that is no prompt of color",
        "a green cup.png": "not named as expected, CATEGORY/samples/PROMPT_000000.png",
    }
    lay(tmp_path / "two", "samples/a red apple_000000.png", "samples/a red apple_000000.jpg")
    left = compbench_files.find_pictures(tmp_path / "two", prompts, 10)
    assert len(left.files) == 1 and len(left.left_out) == 1 and not left.notes


def test_one_picture_is_not_judged_for_two_prompts_of_geneval2(tmp_path):
    prompts = [Prompt("two cups", "0"), Prompt("a pig", "1")]
    lay(tmp_path, "0.png")
    (tmp_path / "images.json").write_text(json.dumps({"two cups": "a/0.png", "a pig": "b/0.png"}))
    with pytest.raises(UserError, match=r"'two cups' and 'a pig' are both .*0\.png"):
        GenEval2().official_pictures(tmp_path, prompts, 1)
    (tmp_path / "images.json").write_text(json.dumps({"two cups": None}))
    with pytest.raises(UserError, match="'two cups' does not name a file"):
        GenEval2().official_pictures(tmp_path, prompts, 1)


def test_pictures_that_cannot_be_read_have_no_verdict_and_are_no_failure_of_the_judge(tmp_path):
    for index, prompt in enumerate(DOGS):
        write_prompt_folder(tmp_path, pictures_of(prompt, 1, 1, index=index))
    for name in ("00000/samples/0000.png", "00001/samples/0001.png"):
        (tmp_path / name).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    Image.new("1", (3000, 1000)).save(tmp_path / "00002/samples/0000.png")
    inventory = list_pictures(
        tmp_path, find_pictures(tmp_path, DOGS), range(3), 2, PictureReaderConfig(max_megapixels=1)
    )
    rows = score_pictures(
        GenEval(PixelDetector()), dict(enumerate(DOGS)), inventory, None, samples=2, max_no_verdict_frac=0
    )  # half of the pictures
    report = report_on(GenEval(PixelDetector()), rows)
    assert (report.overall.value, report.overall.pictures, report.overall.num_no_verdict) == (1, 3, 3)
    assert [row.get("unreadable", False) for row in rows] == [True, False, False, True, True, False]
    assert "3 pictures cannot be read" in report.notes[-1] and "00000/samples/0000.png" in report.notes[-1]
    assert "3000×1000: it has more pixels than max_megapixels=1 allows" in rows[4]["problem"]


def test_what_was_done_to_pictures_on_reading_is_in_their_rows_and_counted(tmp_path):
    write_prompt_folder(tmp_path, pictures_of(DOGS[0], 1, 1, 1))
    array = np.full((8, 8, 4), 1, dtype=np.uint8)
    for sample in (0, 2):
        Image.fromarray(array).save(tmp_path / f"00000/samples/000{sample}.png")
    inventory = list_pictures(tmp_path, find_pictures(tmp_path, DOGS), [0], 3, PictureReaderConfig(ground="black"))
    rows = score_pictures(GenEval(PixelDetector()), {0: DOGS[0]}, inventory, None, samples=3)
    assert [row.get("read") for row in rows] == [
        ["transparency composed on black"],
        None,
        ["transparency composed on black"],
    ]
    assert "pictures as the judges saw them: 2 transparency composed on black" in report_on(GenEval(), rows).notes


def test_a_layout_without_pictures_is_no_error_of_the_inventory(tmp_path):
    assert list_pictures(tmp_path / "none", Layout({}), range(2), 1).missing == [(0, 0), (1, 0)]


def test_large_pictures_are_held_in_memory_a_few_at_a_time():
    half = PIXELS_AT_ONCE // 2
    sizes = [("a", half), ("b", half), ("c", 1), ("d", 3 * half), ("e", 0), ("f", 0), ("g", 0), ("h", 0)]
    assert list(memory_batches(iter(sizes), 3)) == [["a", "b"], ["c"], ["d"], ["e", "f", "g"], ["h"]]
