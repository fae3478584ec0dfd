"""GenEval's folders and results files, there and back."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.benchmarks.helpers import geneval_prompt, pictures_of

from thinkdraw.benchmarks.geneval.files import (
    find_pictures,
    metadata_of,
    read_results,
    write_prompt_folder,
    write_results,
)
from thinkdraw.data.prompt_files import read_geneval
from thinkdraw.errors import UserError

BENCH = geneval_prompt("bench")


def results_row(index=0, sample=0, verdict=1.0, reason="", **more):
    prompt = geneval_prompt("bench", index)
    return {
        "prompt_index": index, "prompt_id": prompt.id, "prompt": prompt.text, "tag": prompt.tag, "sample": sample,
        "verdict": verdict, "reason": reason, "metadata": metadata_of(prompt), "details": {"bench": [[1, 2, 3, 4, 0.5]]},
        **more,
    }  # fmt: skip


def test_a_prompts_record_is_the_official_line(shared_dir):
    path = shared_dir / "benchmarks" / "geneval" / "evaluation_metadata.jsonl"
    assert [json.dumps(metadata_of(p)) for p in read_geneval(path)] == path.read_text().splitlines()


def test_the_official_layout_has_numbered_folders_and_unchanged_pixels(tmp_path):
    drawn = pictures_of(geneval_prompt("bench", 12), 0, 100, 250, index=12)
    write_prompt_folder(tmp_path, drawn)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["00012/metadata.jsonl", *(f"00012/samples/000{i}.png" for i in range(3))]
    assert json.loads((tmp_path / "00012/metadata.jsonl").read_text())["prompt"] == drawn.prompt.text
    np.testing.assert_array_equal(Image.open(tmp_path / "00012/samples/0001.png"), drawn.pictures[1])


def test_pictures_are_found_by_folder_and_sample_number_whatever_else_is_there(tmp_path):
    prompts = [geneval_prompt("bench", 0), geneval_prompt("bench", 1)]
    write_prompt_folder(tmp_path, pictures_of(prompts[1], 1, 2, index=1))
    (tmp_path / "00001/samples/00002.png").write_bytes((tmp_path / "00001/samples/0001.png").read_bytes())
    for extra in ("00001/grid.png", "00001/samples/a.png", "notes/0000.png", "00007/samples/0000.png"):
        (tmp_path / extra).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / extra).write_bytes(b"")
    places = find_pictures(tmp_path, prompts).files
    assert {key: str(place.path.relative_to(tmp_path)) for key, place in places.items()} == {
        (1, 0): "00001/samples/0000.png", (1, 1): "00001/samples/0001.png", (1, 2): "00001/samples/00002.png",
    }  # fmt: skip


def test_pictures_of_another_prompt_file_are_refused(tmp_path):
    write_prompt_folder(tmp_path, pictures_of(BENCH, 1))
    with pytest.raises(UserError, match="says prompt 'a photo of bench 0', the prompt file has 'a photo of cat 0'"):
        find_pictures(tmp_path, [geneval_prompt("cat")])


def test_writing_a_prompt_again_replaces_it_but_more_old_samples_are_refused(tmp_path):
    write_prompt_folder(tmp_path, pictures_of(BENCH, 1, 2))
    write_prompt_folder(tmp_path, pictures_of(BENCH, 3, 4))
    assert np.asarray(Image.open(tmp_path / "00000/samples/0001.png")).max() == 4
    with pytest.raises(UserError, match=r"already holds 0001\.png"):
        write_prompt_folder(tmp_path, pictures_of(BENCH, 5))


def test_results_are_written_as_the_official_tool_writes_them_and_say_whose_they_are(tmp_path):
    write_results(tmp_path / "results.jsonl", [results_row()], "geneval[x/y]")
    assert (tmp_path / "results.jsonl").read_text() == (
        r'{"filename":"00000\/samples\/0000.png","tag":"single_object","prompt":"a photo of bench 0","correct":true,'
        r'"reason":"","metadata":"{\"tag\": \"single_object\", \"include\": [{\"class\": \"bench\", \"count\": 1}], '
        r'\"prompt\": \"a photo of bench 0\"}","details":"{\"bench\": [[1, 2, 3, 4, 0.5]]}","label":"geneval[x\/y]"}'
        "\n"
    )


def test_results_come_back_as_they_were_written(tmp_path):
    rows = [results_row(0, 1, 0.0, "expected bench>=2, found 1\nexpected bench<3, found 3"), results_row(3, 0, None)]
    write_results(tmp_path / "results.jsonl", rows, "geneval[x]")
    assert read_results(tmp_path / "results.jsonl") == [{**row, "label": "geneval[x]"} for row in rows]


def test_prompts_are_known_by_their_text_where_a_prompt_file_is_given(tmp_path):
    write_results(tmp_path / "results.jsonl", [results_row(7)], "")
    prompts = [geneval_prompt("cat"), geneval_prompt("bench", 7)]
    (row,) = read_results(tmp_path / "results.jsonl", prompts)
    assert (row["prompt_index"], row["prompt_id"]) == (1, "00001")
    with pytest.raises(UserError, match="line 1: 'a photo of bench 7' is not a prompt"):
        read_results(tmp_path / "results.jsonl", prompts[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct": "yes"}, "line 2: 'correct' has the wrong type"),
        ({"tag": None}, "line 2: 'tag' has the wrong type"),
        ({"metadata": "{"}, "line 2, metadata is not JSON"),
    ],
)
def test_a_broken_results_file_is_reported_with_its_line(tmp_path, change, message):
    path = tmp_path / "results.jsonl"
    write_results(path, [results_row()], "")
    path.write_text(path.read_text() + json.dumps(json.loads(path.read_text()) | change) + "\n")
    with pytest.raises(UserError, match=message):
        read_results(path)


@pytest.mark.parametrize(
    ("text", "message"), [("", "is empty"), ("{broken\n", "line 1 is not JSON"), ("{}\n", "'filename' is missing")]
)
def test_a_file_that_is_no_results_file_is_refused(tmp_path, text, message):
    (tmp_path / "results.jsonl").write_text(text)
    with pytest.raises(UserError, match=message):
        read_results(tmp_path / "results.jsonl")
