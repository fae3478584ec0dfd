"""DPG-Bench as a benchmark, on a made-up question table in the official columns."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
from tests.benchmarks.compbench.stand_ins import NO_VERDICT, Says

from thinkdraw.benchmarks.base import PictureSet
from thinkdraw.benchmarks.dpg.benchmark import DpgBench, aggregate
from thinkdraw.benchmarks.dpg.files import (
    find_pictures,
    item_of,
    read_details,
    read_results,
    rows_of_results,
    write_file,
    write_results,
)
from thinkdraw.benchmarks.flow import report_on, score_pictures
from thinkdraw.benchmarks.picture_files import list_pictures, read_picture_file
from thinkdraw.errors import UserError
from thinkdraw.images import to_pil

COLUMNS = (
    "item_id", "text", "keywords", "proposition_id", "dependency", "category_broad", "category_detailed", "tuple",
    "question_natural_language",
)  # fmt: skip
TABLE = [
    ("cat1", "A red cat, on a mat.", "1", "0", "entity - whole (cat)", "Is there a cat?"),
    ("cat1", "A red cat, on a mat.", "2", "1", "attribute - color (cat, red)", "Is the cat red?"),
    ("dog2", "A dog in a photo.", "1", "0", "entity - whole (dog)", "Is there a dog?"),
    ("dog2", "A dog in a photo.", "2", "0", "global (photo)", "Is it a photo?"),
    ("dog2", "A dog in a photo.", "3", "1,2", "relation - spatial (dog, photo, in)", "Is the dog in it, there?"),
]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "dpg_bench.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        rows.writerows([(i, text, "k", n, d, t.split(" ")[0], t, t, q) for i, text, n, d, t, q in TABLE])
    return path


def grey(first, side=8):
    return np.full((side, side, 3), first, dtype=np.uint8)


def drawn(index, prompt, firsts, side=8):
    return PictureSet(index, prompt, tuple(range(len(firsts))), tuple(grey(first, side) for first in firsts))


def test_the_table_is_read_in_both_modes(table):
    official, fixed = DpgBench().prompts(table), DpgBench(mode="fixed").prompts(table.parent)
    assert [(p.id, len(p.questions)) for p in official] == [("cat1", 1), ("dog2", 3)]
    assert [(p.id, len(p.questions)) for p in fixed] == [("cat1", 2), ("dog2", 3)]
    assert official[1].text == "A dog in a photo." and official[1].questions[2].depends_on == (1, 2)


def test_without_the_question_table_the_way_to_it_is_said(tmp_path):
    (tmp_path / "prompts.jsonl").write_text('{"item_id": "a", "prompt": "b"}\n')
    for path in (tmp_path, tmp_path / "prompts.jsonl"):
        with pytest.raises(UserError, match=r"question table.*TencentQQGYLab/ELLA"):
            DpgBench().prompts(path)


def test_a_table_that_is_cut_in_a_line_is_named(table):
    table.write_bytes(table.read_bytes()[:-40])
    with pytest.raises(UserError, match="line 6"):
        DpgBench().prompts(table)


def test_the_label_names_judge_and_mode():
    assert DpgBench(Says()).label == "dpg[says]"
    assert DpgBench(Says(), mode="fixed").label == "dpg[says,fixed]"
    with pytest.raises(UserError, match="official or fixed"):
        DpgBench(mode="strict")


def test_a_row_keeps_answers_from_which_it_is_scored_again(table):
    bench = DpgBench(Says(), mode="fixed")
    cat, dog = bench.prompts(table)
    rows = bench.judge([drawn(0, cat, [60, 40]), drawn(1, dog, [NO_VERDICT, 60])])
    assert [(r["prompt_id"], r["sample"], r["verdict"]) for r in rows] == [
        ("cat1", 0, 1.0), ("cat1", 1, 0.0), ("dog2", 0, None), ("dog2", 1, 1.0),
    ]  # fmt: skip
    assert "says gave no verdict" in rows[2]["reason"]
    assert rows[0]["answers"][1] == {
        "id": 2, "question": "Is the cat red?", "category": "attribute - color", "depends_on": [1],
        "p_yes": pytest.approx(0.6),
    }  # fmt: skip


def test_the_official_mode_drops_the_item_whose_parent_was_in_the_skipped_row(table):
    bench = DpgBench(Says())
    cat, dog = bench.prompts(table)
    rows = bench.judge([drawn(0, cat, [60] * 4), drawn(1, dog, [60, 60, 60, 40])])
    report = bench.aggregate(rows)
    assert [r["verdict"] for r in rows[:4]] == [None] * 4 and "dropped" in rows[0]["reason"]
    assert report.extra["dropped_items"] == ["cat1"] and any("cat1" in note for note in report.notes)
    assert report.overall.value * report.scale == 75.0  # dog2 alone: (1 + 1 + 1 + 0) / 4
    assert report.overall.num_no_verdict == 4


def test_one_picture_that_cannot_be_scored_takes_the_others_of_its_item_along(table):
    # question 4 depends on 1, a no of which ends the look for parents, and then on 9, which is not there
    with table.open("a", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["dog2", "x", "k", "4", "1,9", "entity", "x", "entity - part (x)", "Has it ears?"])
    bench = DpgBench(Says())
    cat, dog = bench.prompts(table)
    rows = bench.judge([drawn(0, cat, [60] * 4), drawn(1, dog, [40, 40, 60, 40])])
    assert [row["verdict"] for row in rows[4:]] == [0.0, 0.0, None, 0.0]
    report = bench.aggregate(
        [*rows, *bench.judge([drawn(2, replace(dog, id="dog3", questions=dog.questions[:3]), [60])])]
    )
    assert report.extra["dropped_items"] == ["cat1", "dog2"]
    assert report.overall.value == 1.0 and report.columns["entity"].pictures == 1
    assert [verdicts.verdicts for verdicts in bench.verdicts(rows)] == [pytest.approx([math.nan] * 4, nan_ok=True)] * 2


def test_categories_see_the_last_picture_officially_and_all_in_fixed_mode(table):
    prompts = DpgBench(mode="fixed").prompts(table)
    rows = DpgBench(Says(), mode="fixed").judge([drawn(i, p, [60, 60, 60, 40]) for i, p in enumerate(prompts)])
    official, fixed = (aggregate(rows, "dpg", mode) for mode in ("official", "fixed"))
    assert list(fixed.columns) == ["global", "entity", "attribute", "relation"]
    assert {name: score.value for name, score in official.columns.items()} == dict.fromkeys(fixed.columns, 0.0)
    assert {name: score.value for name, score in fixed.columns.items()} == dict.fromkeys(fixed.columns, 0.75)
    assert fixed.extra["second_level"]["relation - spatial"] == fixed.extra["first_level"]["relation"] == 75.0
    assert fixed.overall.value == official.overall.value == 0.75
    assert fixed.columns["entity"].pictures == 8  # two questions on four pictures each
    assert official.columns["entity"].pictures == 2


def test_a_grid_is_written_and_read_back_in_the_official_order(table, tmp_path):
    prompts = DpgBench().prompts(table)
    DpgBench().export_official(tmp_path / "out", prompts, [drawn(1, prompts[1], [10, 20, 30, 40])])
    places = DpgBench().official_pictures(tmp_path / "out", prompts, 4).files
    assert [int(read_picture_file(places[1, k]).pixels[0, 0, 0]) for k in range(4)] == [10, 20, 30, 40]
    assert places[1, 0].path.name == "dog2.png" and places[1, 1].cell == (0, 1) and places[1, 2].cell == (1, 0)
    assert (0, 0) not in places


@pytest.mark.parametrize(
    ("name", "item"), [("cat1.png", "cat1"), ("cat1.v2.png", "cat1"), ("a/b.c/dog2.x.jpg", "dog2")]
)
def test_an_item_is_the_files_name_up_to_the_first_dot(name, item):
    assert item_of(name) == item


def test_of_two_files_about_an_item_one_counts_and_the_other_is_extra(table, tmp_path):
    prompts, folder = DpgBench().prompts(table), tmp_path / "out"
    folder.mkdir()
    for name in ("dog2.jpg", "dog2.png", "dog3.png", "dog2.txt"):
        to_pil(grey(7, 16)).save(folder / name, format="PNG")
    layout = find_pictures(folder, prompts, as_grids=True)
    assert {place.path.name for place in layout.files.values()} == {"dog2.jpg"}
    assert list_pictures(folder, layout, range(len(prompts)), 4).extra == {
        "dog2.png": "a second file of one picture, beside dog2.jpg",
        "dog3.png": "of an item that is not in the table",
    }


@pytest.mark.parametrize(
    ("firsts", "side"),
    [([1, 2, 3], (8, 8)), ([1, 2, 3, 4, 5], (8, 8)), ([1, 2, 3, 4], (8, 9))],
)
def test_a_grid_needs_four_square_pictures(table, tmp_path, firsts, side):
    prompt = DpgBench().prompts(table)[1]
    pictures = tuple(np.full((*side, 3), first, dtype=np.uint8) for first in firsts)
    with pytest.raises(UserError, match="square and of one size"):
        write_file(tmp_path, PictureSet(1, prompt, tuple(range(len(firsts))), pictures))
    assert not list(tmp_path.glob("*.png"))


def test_a_grid_of_a_wrong_size_and_a_missing_one_are_named_and_not_scored(table, tmp_path):
    bench = DpgBench(Says(), mode="fixed")
    prompts, folder = bench.prompts(table), tmp_path / "out"
    folder.mkdir()
    to_pil(np.full((16, 18, 3), 60, dtype=np.uint8)).save(folder / "dog2.png")
    bench.export_official(folder, prompts, [])
    inventory = list_pictures(folder, bench.official_pictures(folder, prompts, 4), range(2), 4)
    assert len(inventory.missing) == 4 and "prompt 0 picture 0" in inventory.notes()[1]
    rows = score_pictures(bench, dict(enumerate(prompts)), inventory, None, samples=4, max_no_verdict_frac=1)
    assert all("18×16 pixels are not a 2×2 grid" in row["problem"] for row in rows[4:])
    with pytest.raises(UserError, match="none of 8 pictures"):
        report_on(bench, rows)


def test_one_grid_of_a_wrong_size_leaves_the_others_scored(table, tmp_path):
    bench = DpgBench(Says(), mode="fixed")
    prompts, folder = bench.prompts(table), tmp_path / "out"
    bench.export_official(folder, prompts, [drawn(0, prompts[0], [60, 60, 60, 40])])
    to_pil(grey(60, 15)).save(folder / "dog2.png")
    inventory = list_pictures(folder, bench.official_pictures(folder, prompts, 4), range(2), 4)
    rows = score_pictures(bench, dict(enumerate(prompts)), inventory, None, samples=4, max_no_verdict_frac=1)
    report = report_on(bench, rows)
    assert report.overall.value == 0.75 and report.overall.num_no_verdict == 4
    assert "4 pictures cannot be read" in report.notes[-1]


OFFICIAL = """images/with, comma/dog2.png, 1.0, 0.5, 0.3333333333333333, 0.0, 0.4583333333333333
images/with, comma/cat1.x.png, 1.0, 1.0, 1.0, 1.0, 1.0
Model: comma
L1 category scores:
\tentity: 62.5
\tglobal: 75.0
L2 category scores:
\tentity - whole: 62.5
\tglobal: 75.0
Image path: images/with, comma
Save results to: images/with, comma/results.txt
DPG-Bench score: 72.91666666666666
"""


def test_an_official_results_file_is_read_from_the_right(tmp_path):
    (tmp_path / "results.txt").write_text(OFFICIAL)
    found = read_results(tmp_path / "results.txt")
    assert found.items == {"dog2": (1.0, 0.5, 1 / 3, 0.0), "cat1": (1.0, 1.0, 1.0, 1.0)}
    assert found.first_level == {"entity": 62.5, "global": 75.0} and found.second_level["entity - whole"] == 62.5
    assert found.overall == pytest.approx(72.9166666) and found.label is None


def test_official_results_give_rows_of_the_same_overall(table, tmp_path):
    (tmp_path / "results.txt").write_text(OFFICIAL)
    bench = DpgBench()
    rows = bench.import_official(tmp_path / "results.txt", bench.prompts(table))
    assert [r["prompt_index"] for r in rows] == [1] * 4 + [0] * 4
    report = report_on(bench, rows)
    assert report.overall.value * report.scale == pytest.approx(72.9166666)
    assert "label" not in rows[0] and not report.columns


def test_the_file_of_details_beside_it_gives_the_categories(table, tmp_path):
    bench = DpgBench(mode="fixed")
    prompts = bench.prompts(table)
    (tmp_path / "results.txt").write_text("x/dog2.png, 1.0, 0.0, 0.5\nModel: x\nDPG-Bench score: 50.0\n")
    crops = [("(0, 0, 8, 8)", ("yes", "yes", "yes")), ("(8, 0, 16, 8)", ("yes", "no", "yes"))]
    lines = [f"x/dog2.png, {box}, {q.text}, {a}\n" for box, said in crops for q, a in zip(prompts[1].questions, said)]
    (tmp_path / "results_detail.txt").write_text("".join(lines))
    details = read_details(tmp_path / "results_detail.txt")
    assert details["dog2", 1][2] == ("Is the dog in it, there?", "yes")
    report = bench.aggregate(rows_of_results(tmp_path / "results.txt", prompts))
    assert {name: score.value for name, score in report.columns.items()} == {
        "global": 0.5,
        "entity": 1.0,
        "relation": 1.0,
    }


def test_what_we_write_is_read_back_and_says_who_judged(table, tmp_path):
    bench = DpgBench(Says(), mode="fixed")
    prompts = bench.prompts(table)
    rows = bench.judge([drawn(0, prompts[0], [60, 60, 60, 40]), drawn(1, prompts[1], [60, NO_VERDICT, 60, 60])])
    report, path = bench.aggregate(rows), tmp_path / "results.txt"
    write_results(path, rows, "grids/mine", bench.label, report.extra["first_level"], report.extra["second_level"])
    found = read_results(path)
    assert found.items == {"cat1": (1.0, 1.0, 1.0, 0.0)}  # dog2 lacks a verdict
    assert found.overall == 75.0 and found.label == "dpg[says,fixed]"
    assert found.first_level == pytest.approx(report.extra["first_level"])
    assert {row["label"] for row in bench.import_official(path, prompts)} == {"dpg[says,fixed]"}


@pytest.mark.parametrize("mode", ["official", "fixed"])
def test_our_result_files_give_the_same_table_again(table, tmp_path, mode):
    bench = DpgBench(Says(), mode=mode)
    prompts = bench.prompts(table)
    rows = bench.judge([drawn(0, prompts[0], [60, 60, 60, 40]), drawn(1, prompts[1], [60, 40, 60, 60])])
    bench.write_results(tmp_path / "official", rows)
    files = sorted(path.name for path in (tmp_path / "official").iterdir())
    assert files == ["dpg-bench_results.txt", "dpg-bench_results_detail.txt"]
    lines = (tmp_path / "official" / files[1]).read_text().splitlines()
    # crop 1 of a grid of pictures of 8 pixels is its upper right quarter, and 0.4 is no yes
    assert "dog2.png, (8, 0, 16, 8), Is the dog in it, there?, no" in lines
    assert len(lines) == 4 * (3 if mode == "official" else 5)  # cat1 is dropped where the table's first row is skipped
    again = bench.import_official(tmp_path / "official" / files[0], prompts)
    assert {row["label"] for row in again} == {bench.label}
    ours, theirs = bench.aggregate(rows), bench.aggregate(again)
    assert (theirs.overall.value, theirs.columns) == (ours.overall.value, ours.columns)
    assert theirs.extra["second_level"] == ours.extra["second_level"]


def test_an_answer_without_verdict_stays_one_in_our_file_of_details(table, tmp_path):
    bench = DpgBench(Says(), mode="fixed")
    prompts = bench.prompts(table)
    (row,) = bench.judge([drawn(1, prompts[1], [60])])
    row["answers"][0]["p_yes"], row["answers"][1]["p_yes"] = 0.4, None  # 3 depends on 1 and 2: 0, and 1 and 3 are 0
    bench.write_results(tmp_path, [row | {"verdict": 0.0}])
    (again,) = bench.import_official(tmp_path / "dpg-bench_results.txt", prompts)
    assert [answer["answer"] for answer in again["answers"]] == ["no", None, "yes"]


def test_more_pictures_than_a_grid_holds_have_no_official_file(table, tmp_path):
    bench = DpgBench(Says(), mode="fixed")
    rows = bench.judge([drawn(1, bench.prompts(table)[1], [60] * 5)])
    bench.write_results(tmp_path / "official", rows)
    assert not (tmp_path / "official").exists()


def test_missing_pictures_are_an_error_in_fixed_mode_only(table):
    missing = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 3)]
    for mode, error in (("official", None), ("fixed", r"5 pictures of 2 items are missing \(cat1, dog2\)")):
        bench = DpgBench(Says(), mode=mode)
        prompts = bench.prompts(table)
        bench.check_missing([], prompts)
        if error is None:
            bench.check_missing(missing, prompts)
        else:
            with pytest.raises(UserError, match=error):
                bench.check_missing(missing, prompts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no line"),
        ("Model: x\nDPG-Bench score: 3\n", "has no line"),
        ("a.png, 1, 1\nModel: x\nDPG-Bench score: high\n", "no number"),
    ],
)
def test_a_file_that_is_no_results_file_is_refused(tmp_path, text, words):
    (tmp_path / "results.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        read_results(tmp_path / "results.txt")


def test_results_about_other_items_are_refused(table, tmp_path):
    (tmp_path / "results.txt").write_text("x/emu9.png, 1.0, 1.0\n")
    with pytest.raises(UserError, match="'emu9' is no item"):
        rows_of_results(tmp_path / "results.txt", DpgBench().prompts(table))


def test_a_prompt_without_any_verdict_stays_out_of_the_mean(table):
    bench = DpgBench(Says(), mode="fixed")
    prompts = bench.prompts(table)
    report = bench.aggregate(bench.judge([drawn(0, prompts[0], [60] * 4), drawn(1, prompts[1], [NO_VERDICT] * 4)]))
    assert report.overall.value == 1.0 and report.overall.num_no_verdict == 4 and report.overall.prompts == 1
    assert math.isnan(report.columns["relation"].value)
