"""Test prompts of benchmarks that the user keeps are kept out of training without being named."""

import json

import pytest

from thinkdraw.benchmarks.settings import sha256_of
from thinkdraw.errors import UserError
from thinkdraw.training import known_tests
from thinkdraw.training.data import DataSettings, load_prompts
from thinkdraw.training.known_tests import known_test_sets
from thinkdraw.types import Prompt


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


TEST_SET = ["A photo of a red dog.", "a photo of two cats"]


@pytest.fixture
def published(monkeypatch):
    """A test set of two prompts that this version knows by its texts, and GenEval's file by its hash."""
    hashed = known_tests.texts_hash([Prompt(text) for text in TEST_SET])
    monkeypatch.setitem(known_tests.PUBLISHED, hashed, "Bench")
    monkeypatch.delenv("THINKDRAW_BENCHMARKS", raising=False)
    return hashed


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.txt", "a photo of two cats\r\nA photo of a red dog.\r\n"),
        ("mine.jsonl", "".join(json.dumps({"prompt": text}) + "\n" for text in TEST_SET)),
        ("mine.json", json.dumps([{"prompt": text, "id": f"x{n}"} for n, text in enumerate(TEST_SET)])),
        ("mine.csv", "prompt\n" + "\n".join(TEST_SET) + "\n"),
    ],
)
def test_a_published_test_set_is_refused_in_every_form_and_without_a_variable(published, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    for leaks in ("refuse", "drop"):
        with pytest.raises(UserError, match="the test set of Bench: it must not be trained on"):
            load_prompts(DataSettings(source=str(tmp_path / name), leaks=leaks))
    (tmp_path / "other.txt").write_text("a photo of two cats\n")
    assert len(load_prompts(DataSettings(source=str(tmp_path / "other.txt")))) == 1


def test_a_file_is_known_by_the_hash_that_its_benchmark_publishes(tmp_path, monkeypatch):
    from thinkdraw.benchmarks.geneval.benchmark import GenEval

    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "prompts.jsonl").write_text('{"prompt": "a cat"}\n')
    monkeypatch.setattr(GenEval, "official_sha256", (sha256_of(folder / "prompts.jsonl"),))
    for source in (folder, folder / "prompts.jsonl"):
        with pytest.raises(UserError, match="the test set of geneval"):
            load_prompts(DataSettings(source=str(source)))


def test_the_published_sets_are_refused_and_training_sets_are_not(shared_dir, monkeypatch):
    monkeypatch.delenv("THINKDRAW_BENCHMARKS", raising=False)
    folder = shared_dir / "benchmarks"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    tests = ["geneval", "geneval/generation_prompts.txt", "geneval2/geneval2_data.jsonl", "dpg_bench", "t2i_compbench",
             "t2i_compbench/color_val.txt", "t2i_compbench/shape_val_unseen.txt", "unigenbench/test_prompts_en.csv"]  # fmt: skip
    for name in tests:
        with pytest.raises(UserError, match="is the test set of"):
            load_prompts(DataSettings(source=str(folder / name)))
    assert len(load_prompts(DataSettings(source=str(folder / "t2i_compbench" / "color_train.txt")))) == 700


def test_a_file_says_how_many_prompts_were_read(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("a cat\na dog\n")
    load_prompts(DataSettings(source=str(tmp_path / "mine.txt")))
    assert capsys.readouterr().err == f"prompts of {tmp_path / 'mine.txt'}: 2 read\n"
