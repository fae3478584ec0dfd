"""Test prompts of benchmarks that the user keeps are kept out of training without being named."""

import json

import pytest

from thinkdraw.errors import UserError
from thinkdraw.training.data import DataSettings, load_prompts
from thinkdraw.training.known_tests import known_test_sets


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """GenEval's and DPG-Bench's prompts, the latter without questions, and a benchmark's folder that is empty."""
    folder = tmp_path / "benchmarks"
    rows = {
        "geneval/evaluation_metadata.jsonl": {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "red"}],
                                              "prompt": "a photo of a red dog"},
        "dpg_bench/prompts.jsonl": {"item_id": "0", "prompt": "A dog sleeps."},
    }  # fmt: skip
    for name, row in rows.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(json.dumps(row) + "\n")
    (folder / "geneval2").mkdir()
    monkeypatch.setenv("THINKDRAW_BENCHMARKS", str(folder))
    return folder


def test_the_prompt_files_that_are_there_are_found(kept, monkeypatch):
    names = ["dpg_bench/prompts.jsonl", "geneval/evaluation_metadata.jsonl"]
    assert [path.relative_to(kept).as_posix() for path in known_test_sets()] == names
    monkeypatch.delenv("THINKDRAW_BENCHMARKS")
    assert known_test_sets() == []


def test_a_training_prompt_that_a_known_benchmark_tests_is_refused_or_left_out(kept, tmp_path):
    source = tmp_path / "train.txt"
    source.write_text("The red dog\na blue dog\nthe dog sleeps\n")
    with pytest.raises(UserError, match=r"2 of 3 training prompts are test prompts.*prompts\.leaks: drop"):
        load_prompts(DataSettings(source=str(source)))
    assert [p.text for p in load_prompts(DataSettings(source=str(source), leaks="drop"))] == ["a blue dog"]
