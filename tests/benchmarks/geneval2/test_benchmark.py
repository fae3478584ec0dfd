"""GenEval 2: which strings count, both means, the report, and the official files."""

import json
import math

import pytest
from tests.benchmarks.helpers import PixelQuestioner, PixelWords, pictures_of

from thinkdraw.benchmarks.geneval2.benchmark import GenEval2, aggregate
from thinkdraw.benchmarks.geneval2.soft_tifa import answer_strings, arithmetic_mean, counts_as_yes_no, geometric_mean
from thinkdraw.benchmarks.picture_files import read_picture_file
from thinkdraw.errors import UserError

NAN = math.nan
DATA = [
    {"prompt": "two red cups", "atom_count": 3,
     "vqa_list": [["How many cups are in the image?", "two"], ["Are the cups red?", "Yes"]], "skills": ["count", "attribute"]},
    {"prompt": "a pig", "atom_count": 4, "vqa_list": [["Are there any pigs in the image?", "Yes"]], "skills": ["object"]},
]  # fmt: skip


def data_file(folder, rows=DATA):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "geneval2_data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "geneval2_data.jsonl"


@pytest.mark.parametrize(
    ("question", "answer", "strings"),
    [
        ("How many cups are in the image?", "two", ("two", "Two", " two", " Two", "2", " 2")),
        ("How many cups are in the image?", "ten", ("ten", "Ten", " ten", " Ten", "10", " 10")),
        ("How many cups are in the image?", "eleven", ("eleven", "Eleven", " eleven", " Eleven", "other", " other")),
        ("Are the cups red?", "Yes", ("Yes", "yes", " yes", " Yes")),
    ],
)
def test_the_strings_whose_first_tokens_count(question, answer, strings):
    assert answer_strings(question, answer) == strings


@pytest.mark.parametrize(
    ("scores", "am", "gm"),
    [
        ([0.25, 1.0], 0.625, 0.5),  # (0.25 + 1) / 2; sqrt(0.25)
        ([0.5, 0.5, 0.5], 0.5, 0.5),
        ([0.9, 0.0], 0.45, 0.0),
        ([1.0], 1.0, 1.0),
        ([0.9, NAN], NAN, NAN),
        ([0.0, NAN], NAN, NAN),
    ],
)
def test_means_of_one_picture(scores, am, gm):
    assert arithmetic_mean(scores) == pytest.approx(am, nan_ok=True)
    assert geometric_mean(scores) == pytest.approx(gm, nan_ok=True)


def test_a_judge_of_words_is_asked_the_official_way(tmp_path):
    prompts, judge = GenEval2().prompts(data_file(tmp_path)), PixelWords()
    (row,) = GenEval2(judge).judge([pictures_of(prompts[0], 64)])
    assert judge.asked == [
        ("How many cups are in the image? Answer in one word.", ("two", "Two", " two", " Two", "2", " 2")),
        ("Are the cups red? Answer in one word.", ("Yes", "yes", " yes", " Yes")),
    ]
    assert row["verdict"] == pytest.approx(0.64) and row["scores"] == pytest.approx([0.64, 0.64])
    assert row["skills"] == ["count", "attribute"] and row["tag"] == "3"


def test_a_judge_of_yes_and_no_is_asked_otherwise_and_the_label_says_so(tmp_path):
    class Listens(PixelQuestioner):
        def answer(self, pictures, questions):
            self.asked = list(questions)
            return super().answer(pictures, questions)

    prompts, judge = GenEval2().prompts(data_file(tmp_path)), Listens()
    GenEval2(judge).judge([pictures_of(prompts[0], 64)])
    assert judge.asked == ["Is the number of cups in the image exactly two?", "Are the cups red?"]
    assert counts_as_yes_no("How many hot dogs are in the image?", "one").startswith("Is the number of hot dogs in")
    assert GenEval2(judge).label == "geneval2[pixel+yes-no]" and GenEval2(PixelWords()).label == "geneval2[pixel]"
    judge.hard = True
    assert GenEval2(judge).label == "geneval2[pixel+hard-yes-no]"


def test_the_report_has_both_means_skills_and_atom_counts(tmp_path):
    prompts = GenEval2().prompts(data_file(tmp_path))
    rows = GenEval2().import_official(write(tmp_path / "scores.json", [[0.25, 1.0], [0.5]]), prompts)
    report = aggregate(rows, "geneval2")
    assert report.overall.value == pytest.approx((0.5 + 0.5) / 2) and report.scale == 100
    assert {name: score.value for name, score in report.columns.items()} == pytest.approx(
        {"AM": (0.625 + 0.5) / 2, "object": 0.5, "attribute": 1.0, "count": 0.25, "3 atoms": 0.5, "4 atoms": 0.5}
    )


def test_the_arithmetic_mean_is_never_below_the_geometric_one(tmp_path):
    prompts = GenEval2().prompts(data_file(tmp_path))
    rows = GenEval2().import_official(write(tmp_path / "s.json", [[0.3, 0.9], [0.7]]), prompts)
    assert all(row["mean"] >= row["verdict"] - 1e-12 for row in rows)


def test_a_question_without_verdict_leaves_its_picture_out(tmp_path):
    prompts = GenEval2().prompts(data_file(tmp_path))
    rows = GenEval2(PixelWords()).judge([pictures_of(prompts[0], 255), pictures_of(prompts[1], 50, index=1)])
    report = aggregate(rows, "geneval2")
    assert rows[0]["verdict"] is None and rows[0]["reason"] == "pixel gave no verdict"
    assert (report.overall.value, report.overall.num_no_verdict) == (pytest.approx(0.5), 1)


def test_the_official_input_goes_there_and_back(tmp_path):
    prompts = GenEval2().prompts(data_file(tmp_path))
    sets = [pictures_of(prompt, 10 + i, index=i) for i, prompt in enumerate(prompts)]
    GenEval2().export_official(tmp_path / "out", prompts, sets)
    named = json.loads((tmp_path / "out/images.json").read_text())
    assert set(named) == {"two red cups", "a pig"}
    places = GenEval2().official_pictures(tmp_path / "out", prompts, 1).files
    assert {key: int(read_picture_file(place).pixels.max()) for key, place in places.items()} == {
        (0, 0): 10,
        (1, 0): 11,
    }
    (tmp_path / "out").rename(tmp_path / "moved")
    assert len(GenEval2().official_pictures(tmp_path / "moved", prompts, 1).files) == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [("{}", "not a list"), ("[[1.0, 0.5]]", "scores of 1 prompts"), ("[[1.0], [0.5]]", "entry 0"), ("[", "not JSON")],
)
def test_a_result_file_that_does_not_fit_is_refused(tmp_path, content, says):
    prompts = GenEval2().prompts(data_file(tmp_path))
    (tmp_path / "scores.json").write_text(content)
    with pytest.raises(UserError, match=says):
        GenEval2().import_official(tmp_path / "scores.json", prompts)


def test_a_result_file_needs_its_prompts(tmp_path):
    with pytest.raises(UserError, match="Give them: prompts="):
        GenEval2().import_official(write(tmp_path / "s.json", [[1.0]]))


def test_a_cut_or_malformed_prompt_file_is_named_with_its_line(tmp_path):
    path = data_file(tmp_path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UserError, match="line 2 is not JSON"):
        GenEval2().prompts(path)
    with pytest.raises(UserError, match="line 1: vqa_list and skills"):
        GenEval2().prompts(data_file(tmp_path / "b", [{**DATA[0], "skills": ["count"]}]))


def test_the_official_file_has_its_published_counts(shared_dir):
    from collections import Counter

    prompts = GenEval2().prompts(shared_dir / "benchmarks/geneval2/geneval2_data.jsonl")
    assert len(prompts) == 800 and Counter(p.tag for p in prompts) == {str(n): 100 for n in range(3, 11)}
    assert Counter(q.category for p in prompts for q in p.questions) == {
        "object": 2025, "count": 2025, "attribute": 1214, "position": 662, "verb": 86,
    }  # fmt: skip
    asked = [(q.text, (q.fact or {})["answer"]) for p in prompts for q in p.questions]
    assert all(text.startswith("How many") != (answer == "Yes") for text, answer in asked)
    assert "other" not in {string for pair in asked for string in answer_strings(*pair)}


def write(path, value):
    path.write_text(json.dumps(value))
    return path
