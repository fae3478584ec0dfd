import json
import math
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from thinkdraw.benchmarks import BENCHMARKS, geneval
from thinkdraw.benchmarks.geneval import (
    PictureResult,
    aggregate,
    label_with,
    read_metadata,
    read_results_jsonl,
    write_official_layout,
    write_results_jsonl,
)
from thinkdraw.errors import UserError

BENCH = {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"}


def result(tag, prompt, correct, reason=""):
    metadata = {"tag": tag, "include": [{"class": prompt, "count": 1}], "prompt": prompt}
    return PictureResult(f"out/{prompt}/samples/0000.png", tag, prompt, correct, reason, metadata, {})


def picture(value, height=4, width=6):
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_the_registry_knows_geneval_and_substitutes_are_labelled():
    assert BENCHMARKS["geneval"] is geneval
    assert label_with("hf-mask2former") == "geneval[hf-mask2former]"


def test_overall_is_the_mean_of_tag_scores_and_shares_are_over_pictures_and_prompts():
    results = [result("counting", "dog", i == 0) for i in range(4)]  # 1/4, solved
    results += [result("colors", "cat", True) for _ in range(4)]  # 4/4, solved
    results += [result("colors", "cow", False) for _ in range(4)]  # 0/4, not solved
    report = aggregate(results)
    assert report.per_tag["counting"].value == 1 / 4 and report.per_tag["colors"].value == 4 / 8
    assert report.overall.value == (1 / 4 + 1 / 2) / 2
    assert report.correct_pictures_frac == 5 / 12
    assert report.solved_prompts_frac == 2 / 3
    assert (report.overall.pictures, report.overall.prompts) == (12, 3)


def test_tags_come_in_the_official_order_and_missing_ones_are_named():
    report = aggregate([result("lab", "x", True), result("colors", "cat", True), result("counting", "dog", True)])
    assert list(report.per_tag) == ["counting", "colors", "lab"]
    assert report.missing_tags == ("single_object", "two_object", "position", "color_attr")


def test_the_order_of_results_changes_nothing():
    rng = np.random.default_rng(0)
    results = [result("colors", f"p{rng.integers(17)}", bool(rng.random() < 0.5)) for _ in range(80)]
    assert aggregate(results, num_resamples=300) == aggregate(results[::-1], num_resamples=300)


def test_a_picture_without_verdict_is_counted_and_never_wrong():
    report = aggregate([result("colors", "cat", True), result("colors", "cat", None), result("colors", "cow", None)])
    assert (report.overall.value, report.overall.num_no_verdict) == (1, 2)
    assert (report.correct_pictures_frac, report.solved_prompts_frac) == (1, 1)


def test_shares_are_nan_if_no_picture_has_a_verdict():
    report = aggregate([result("colors", "cat", None)])
    assert math.isnan(report.overall.value) and math.isnan(report.solved_prompts_frac)


def test_no_results_is_an_error():
    with pytest.raises(ValueError, match="at least one prompt"):
        aggregate([])


def test_the_official_prompts_have_the_official_counts_per_tag(shared_dir):
    folder = shared_dir / "benchmarks" / "geneval"
    rows = read_metadata(folder / "evaluation_metadata.jsonl")
    assert Counter(row["tag"] for row in rows) == {
        "single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100,
    }  # fmt: skip
    assert [row["prompt"] for row in rows] == (folder / "generation_prompts.txt").read_text().splitlines()


def test_the_official_clauses_use_the_palette_and_relations_of_the_rules(shared_dir):
    from thinkdraw.rewards.rules import COLORS, RELATIONS

    rows = read_metadata(shared_dir / "benchmarks" / "geneval" / "evaluation_metadata.jsonl")
    clauses = [clause for row in rows for clause in row["include"]]
    assert {clause["color"] for clause in clauses if "color" in clause} <= set(COLORS)
    assert {clause["position"][0] for clause in clauses if "position" in clause} == set(RELATIONS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the file is empty"),
        ("\n \n", "line 1: the file is empty"),
        (json.dumps(BENCH) + "\n{broken\n", "line 2: not valid JSON"),
        (json.dumps(BENCH) + "\n\n" + json.dumps(BENCH), "line 2: not valid JSON"),
        ("[1, 2]\n", "line 1: expected a JSON object"),
        ('{"tag": "colors", "include": []}', "line 1: the key 'prompt' is missing"),
        ('{"tag": 3, "prompt": "", "include": []}', "line 1: 'tag' has the wrong type"),
        ('{"tag": "t", "prompt": "p", "include": ["dog"]}', "line 1: a clause must be an object"),
        ('{"tag": "t", "prompt": "p", "include": [{"class": "dog"}]}', "line 1: the key 'count' is missing"),
    ],
)
def test_a_broken_metadata_file_is_reported_with_its_line(tmp_path, text, message):
    path = tmp_path / "metadata.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_metadata(path)


def test_a_missing_metadata_file_is_reported(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_metadata(tmp_path / "nowhere.jsonl")


def test_the_official_layout_has_numbered_folders_and_unchanged_pixels(tmp_path):
    pictures = np.stack([picture(value) for value in (0, 100, 255)])
    write_official_layout(tmp_path, 12, BENCH, pictures)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["00012/metadata.jsonl", *(f"00012/samples/000{i}.png" for i in range(3))]
    assert read_metadata(tmp_path / "00012" / "metadata.jsonl") == [BENCH]
    np.testing.assert_array_equal(Image.open(tmp_path / "00012/samples/0001.png"), pictures[1])


def test_writing_a_prompt_again_replaces_it_but_more_old_samples_are_refused(tmp_path):
    write_official_layout(tmp_path, 0, BENCH, [picture(1), picture(2)])
    write_official_layout(tmp_path, 0, BENCH, [picture(3), picture(4)])
    assert np.asarray(Image.open(tmp_path / "00000/samples/0001.png")).max() == 4
    with pytest.raises(UserError, match=r"already holds 0001\.png"):
        write_official_layout(tmp_path, 0, BENCH, [picture(5)])


@pytest.mark.parametrize("wrong", [np.zeros((4, 6, 3)), np.zeros((3, 4, 6), np.uint8), np.zeros((4, 6), np.uint8)])
def test_a_picture_in_another_form_is_refused(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
        write_official_layout(tmp_path, 0, BENCH, [wrong])


def test_results_are_written_as_the_official_tool_writes_them(tmp_path):
    found = PictureResult(
        "out/0.png", "single_object", BENCH["prompt"], True, "", BENCH, {"bench": [[1, 2, 3, 4, 0.5]]}
    )
    write_results_jsonl(tmp_path / "results.jsonl", [found])
    assert (tmp_path / "results.jsonl").read_text() == (
        r'{"filename":"out\/0.png","tag":"single_object","prompt":"a photo of a bench","correct":true,"reason":"",'
        r'"metadata":"{\"tag\": \"single_object\", \"include\": [{\"class\": \"bench\", \"count\": 1}], '
        r'\"prompt\": \"a photo of a bench\"}","details":"{\"bench\": [[1, 2, 3, 4, 0.5]]}"}' + "\n"
    )


def test_results_come_back_as_they_were_written(tmp_path):
    results = [
        result("counting", "dog", False, "expected dog>=2, found 1\nexpected dog<3, found 3"),
        result("colors", 'a "red" / blue \\ café', None),
    ]
    write_results_jsonl(tmp_path / "results.jsonl", results)
    assert read_results_jsonl(tmp_path / "results.jsonl") == results


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": "yes"}, "line 2: 'correct' has the wrong type"),
        ({"metadata": "{"}, "line 2, metadata: not valid JSON"),
    ],
)
def test_a_broken_results_file_is_reported_with_its_line(tmp_path, change, message):
    path = tmp_path / "results.jsonl"
    write_results_jsonl(path, [result("colors", "cat", True)])
    path.write_text(path.read_text() + json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(UserError, match=message):
        read_results_jsonl(path)
