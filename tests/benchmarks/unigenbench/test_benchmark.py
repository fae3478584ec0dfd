"""UniGenBench: test points, the judge's answer, dimensions, and the official files."""

import csv
import json
from collections import Counter

import pytest
from tests.benchmarks.helpers import pictures_of

from thinkdraw.benchmarks.picture_files import read_picture_file
from thinkdraw.benchmarks.unigenbench import files
from thinkdraw.benchmarks.unigenbench.benchmark import DIMENSIONS, UniGenBench, aggregate
from thinkdraw.errors import UserError

POINTS = {
    "0": [("Style", "ink"), ("Attribute - Color", "a red cup")],
    "1": [("Attribute - Size", "a {large} cup"), ("Attribute - Color", "blue")],
}


def prompt_file(folder, broken=False):
    with (folder / "test_prompts_en.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "prompt_en", "sub_dims_en"])
        for index, points in POINTS.items():
            kinds, texts = zip(*points)
            cell = json.dumps({"Testpoints": kinds, "Testpoint Description": texts})
            writer.writerow([index, f"draw {{points}} {index}", cell.replace('", "', '" "', 1) if broken else cell])
    return folder / "test_prompts_en.csv"


def rubric(folder, text='Of "{prompt}": {points}\nAnswer <score>[…]</score> as {"json": 1}. Again: {prompt}'):
    (folder / "rubric.txt").write_text(text)
    return str(folder / "rubric.txt")


class Writer:
    """Answers from a list, in turn, and keeps what it was asked."""

    name, path = "vlm", "CodeGoat24/UniGenBench-EvalModel"

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    def write(self, requests):
        self.asked += requests
        return [self.answers.pop(0) for _ in requests]


def test_a_rubric_is_filled_in_once_and_asks_about_every_test_point(tmp_path):
    prompts = UniGenBench().prompts(prompt_file(tmp_path))
    writer = Writer("<analysis>['a','b']</analysis><score>[1, 0]</score>")
    (row,) = UniGenBench(writer, rubric(tmp_path)).judge([pictures_of(prompts[1], 5, index=1)])
    assert writer.asked[0].text == (
        'Of "draw {points} 1": 1. Attribute - Size: a {large} cup\n2. Attribute - Color: blue\n'
        'Answer <score>[…]</score> as {"json": 1}. Again: draw {points} 1'
    )
    assert (row["points"], row["verdict"]) == ([1, 0], 0.5) and "<analysis>" in row["answer"]


@pytest.mark.parametrize(
    ("answer", "points"),
    [
        ("<score>[1, 0]</score>", [1, 0]),
        ("…<score>\n [0,1] </score> and more <score>[1, 1]</score>", [0, 1]),
        ("<score>[1]</score>", None),
        ("<score>[1, 0, 1]</score>", None),
        ("<score>[1, 2]</score>", None),
        ("<score>[1, 0.5]</score>", None),
        ("<score>[1, ]</score>", None),
        ("[1, 0]", None),
        ("", None),
    ],
)
def test_a_score_is_read_or_there_is_no_verdict(answer, points):
    assert files.read_points(answer, 2) == points


def test_only_answers_without_a_score_are_asked_again(tmp_path):
    prompts = UniGenBench().prompts(prompt_file(tmp_path))
    writer = Writer("no idea", "<score>[1, 1]</score>", None, "<score>[0, 1]</score>")
    rows = UniGenBench(writer, rubric(tmp_path), attempts=4).judge([pictures_of(prompts[0], 5, 6)])
    assert [row["points"] for row in rows] == [[0, 1], [1, 1]] and len(writer.asked) == 4
    writer = Writer("no", "no")
    (row,) = UniGenBench(writer, rubric(tmp_path), attempts=2).judge([pictures_of(prompts[0], 5)])
    assert row["verdict"] is None and row["reason"] == "vlm:UniGenBench-EvalModel gave no usable answer"


def test_dimensions_pool_test_points_and_the_overall_is_their_mean(tmp_path):
    prompts = UniGenBench().prompts(prompt_file(tmp_path))
    answers = ["[1, 1]", "[0, 1]", "[1, 0]", "no"]
    writer = Writer(*(f"<score>{answer}</score>" for answer in answers))
    benchmark = UniGenBench(writer, rubric(tmp_path), attempts=1)
    rows = benchmark.judge([pictures_of(prompts[0], 1, 2), pictures_of(prompts[1], 3, 4, index=1)])
    report = benchmark.aggregate(rows)
    # Style: 1, 0. Attribute: color 1, 1 and 0; size 1; the fourth picture has none.
    assert {name: score.value for name, score in report.columns.items()} == {"Style": 1 / 2, "Attribute": 3 / 4}
    assert report.overall.value == (1 / 2 + 3 / 4) / 2
    assert (report.overall.pictures, report.overall.num_no_verdict, report.unit) == (6, 2, "test points")
    assert {kind: found["value"] for kind, found in report.extra["sub_dimensions"].items()} == {
        "Style": 0.5, "Attribute - Color": 2 / 3, "Attribute - Size": 1.0,
    }  # fmt: skip
    assert report.label == "unigenbench[vlm:UniGenBench-EvalModel]" and "no test point of World" in report.notes[0]


@pytest.mark.parametrize(
    ("kind", "dimension"),
    [
        ("Style", "Style"),
        ("Action - Full-body (Character/Anthropomorphic)", "Action"),
        ("Entity Layout - Two-Dimensional Space", "Entity Layout"),
        ("Action - Non-contact Interaction", "Action"),
    ],
)
def test_a_dimension_is_the_text_before_the_first_hyphen(kind, dimension):
    assert files.dimension_of(kind) == dimension


def test_a_missing_comma_in_the_table_is_put_in(tmp_path):
    assert files.read_prompts(prompt_file(tmp_path, broken=True))[0].tag == "Style | Attribute - Color"


def test_the_official_tables_have_their_published_counts(shared_dir):
    folder = shared_dir / "benchmarks/unigenbench"
    for name, points in (("test_prompts_en.csv", 1813), ("test_prompts_en_long.csv", 3915 + 5)):
        prompts = files.read_prompts(folder / name)
        kinds = Counter(q.category for p in prompts for q in p.questions)
        assert (len(prompts), len(kinds), sum(kinds.values())) == (600, 27, points)
        assert {files.dimension_of(kind) for kind in kinds} == set(DIMENSIONS)


def test_pictures_go_there_and_back(tmp_path):
    prompts = UniGenBench().prompts(prompt_file(tmp_path))
    out = tmp_path / "pictures"
    UniGenBench().export_official(out, prompts, [pictures_of(prompts[1], 3, 4, index=1)])
    assert sorted(path.name for path in out.iterdir()) == ["1_0.png", "1_1.png"]
    (out / "7_0.png").write_bytes(b"")
    places = UniGenBench().official_pictures(out, prompts, 2).files
    assert {key: int(read_picture_file(place).pixels.max()) for key, place in places.items()} == {(1, 0): 3, (1, 1): 4}


def results_file(folder, rows):
    with (folder / "model_en.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["index", "prompt", "testpoint", "output", "result_json", "img_path"])
        writer.writeheader()
        for index, sample, scores in rows:
            kinds = [kind for kind, _ in POINTS[index]]
            result = json.dumps({"testpoint": kinds, "score": scores}, indent=4)
            writer.writerow({"index": index, "prompt": f"p{index}", "testpoint": str(kinds), "output": "…",
                             "result_json": result, "img_path": f"/x/model/{index}_{sample}.png"})  # fmt: skip
    return folder / "model_en.csv"


def test_upstreams_results_are_read_into_the_same_table(tmp_path):
    path = results_file(tmp_path, [("0", 0, [0, 0]), ("0", 1, [0, 1]), ("1", 0, [1, 0]), ("0", 0, [1, 1])])
    rows = UniGenBench().import_official(path)
    assert len(rows) == 3  # the second row about 0_0 counts
    report = aggregate(rows, "unigenbench")
    assert {name: score.value for name, score in report.columns.items()} == {"Style": 1 / 2, "Attribute": 3 / 4}


def test_what_is_not_of_the_form_is_refused(tmp_path):
    path = results_file(tmp_path, [("0", 0, [0])])
    with pytest.raises(UserError, match="not of upstream's form"):
        UniGenBench().import_official(path)
    with pytest.raises(UserError, match=r"has no \{points\}"):
        UniGenBench(Writer(), rubric(tmp_path, "{prompt}"))
    with pytest.raises(UserError, match=r"settings\.rubric=FILE"):
        UniGenBench(Writer())
