"""Test prompts of benchmarks that the user keeps are kept out of training without being named."""

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thinkdraw.benchmarks.settings import sha256_of
from thinkdraw.cli import app
from thinkdraw.corpus.sources import PromptSource
from thinkdraw.data.test_sets import hashes
from thinkdraw.errors import UserError
from thinkdraw.training.data import DataSettings, load_prompts
from thinkdraw.training.known_tests import known_test_sets, refuse_tests_in_store
from thinkdraw.types import Prompt


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """GenEval's and DPG-Bench's prompts, the latter without questions, and a benchmark's folder that is empty."""
    folder = tmp_path / "benchmarks"
    rows = {
        "geneval/evaluation_metadata.jsonl": {"tag": "colors", "include": [{"class": "dog", "count": 1, "color": "mauve"}],
                                              "prompt": "a photo of a mauve dog"},
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
    source.write_text("The mauve dog\na beige dog\nthe dog sleeps\n")
    with pytest.raises(UserError, match=r"2 of 3 training prompts are test prompts.*prompts\.leaks: drop"):
        load_prompts(DataSettings(source=str(source)))
    assert [p.text for p in load_prompts(DataSettings(source=str(source), leaks="drop"))] == ["a beige dog"]


TEST_SET = ["A photo of a red dog.", "a photo of two cats"]


@pytest.fixture
def published(monkeypatch):
    """A test set of two prompts that this version knows by their hashes."""
    names = {hashes.hash_of(Prompt(text)): "Bench" for text in TEST_SET}
    monkeypatch.setattr(hashes, "_names", lambda: names)
    monkeypatch.delenv("THINKDRAW_BENCHMARKS", raising=False)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.txt", "a photo of two cats\r\nA photo of a red dog.\r\n"),
        ("mine.jsonl", "".join(json.dumps({"prompt": text}) + "\n" for text in TEST_SET)),
        ("mine.json", json.dumps([{"prompt": text, "id": f"x{n}"} for n, text in enumerate(TEST_SET)])),
        ("mine.csv", "prompt\n" + "\n".join(TEST_SET) + "\n"),
        ("part.txt", TEST_SET[1] + "\n"),
    ],
)
def test_a_published_test_set_is_refused_in_every_form_and_without_a_variable(published, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    for leaks in ("refuse", "drop"):
        with pytest.raises(UserError, match=r"the test set of Bench\. It must not be trained on"):
            load_prompts(DataSettings(source=str(tmp_path / name), leaks=leaks))


def test_one_published_test_prompt_among_others_is_refused_or_left_out(published, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("a green dog\nTWO cats!\na blue dog\n")
    with pytest.raises(
        UserError, match=r"1 of 3 training prompts are test prompts of Bench \(1\).*prompts\.leaks: drop"
    ):
        load_prompts(DataSettings(source=str(path)))
    assert [p.text for p in load_prompts(DataSettings(source=str(path), leaks="drop"))] == ["a green dog", "a blue dog"]


def test_a_train_file_loses_its_test_prompts_and_a_folder_gives_its_train_files(published, tmp_path, caplog):
    folder = tmp_path / "t2i_compbench"
    folder.mkdir()
    (folder / "color_train.txt").write_text("a green dog\na photo of two cats\n")
    (folder / "shape_train.txt").write_text("a round dog\n")
    (folder / "color_val.txt").write_text("a photo of a red dog\n")
    prompts = load_prompts(DataSettings(source=str(folder)))
    assert [(p.text, p.tag) for p in prompts] == [("a green dog", "color"), ("a round dog", "shape")]
    assert "1 of 3 prompts" in caplog.text and "left out" in caplog.text
    with pytest.raises(UserError, match="is the test set of Bench"):
        load_prompts(DataSettings(source=str(folder / "color_val.txt")))
    (folder / "color_train.txt").unlink(), (folder / "shape_train.txt").unlink()
    with pytest.raises(UserError, match="none of T2I-CompBench's train files"):
        load_prompts(DataSettings(source=str(folder)))


@pytest.mark.parametrize("name", ["evaluation_metadata.jsonl", "texture_val_unseen.txt", "dpg_bench.csv"])
def test_the_published_name_of_a_test_file_is_refused_with_the_way_out(tmp_path, name):
    rows = {"jsonl": '{"prompt": "xyz", "tag": "counting", "include": [{"class": "dog", "count": 1}]}\n', "txt": "xyz\n",
            "csv": "item_id,text,proposition_id,dependency,category_broad,question_natural_language\n1,xyz,1,0,entity,dog?\n"}  # fmt: skip
    (tmp_path / name).write_text(rows[name.rpartition(".")[2]])
    with pytest.raises(UserError, match="by its name: rename the file"):
        load_prompts(DataSettings(source=str(tmp_path / name)))


def test_a_noun_is_no_test_prompt_although_a_photo_of_it_is():
    prompts = [Prompt("a bench"), Prompt("a photo of a bench"), Prompt("a red apple")]
    assert hashes.hash_of(Prompt("A photo of a bench.", tag="single_object")) == hashes.text_hashes(prompts[1].text)[1]
    assert hashes.published_tests_among(prompts) == {1: "GenEval"}


def test_a_benchmarks_name_is_no_source_of_prompts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is a benchmark"):
        load_prompts(DataSettings(source="geneval"))
    with pytest.raises(UserError, match=r"hf download Owner/Set-230k --repo-type dataset"):
        load_prompts(DataSettings(source="Owner/Set-230k"))


def test_prompts_check_looks_for_published_prompts_although_no_test_set_is_named(published, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("a green dog\na photo of two cats\n")
    reply = CliRunner().invoke(app, ["prompts", "check", str(path), "--json"])
    assert reply.exit_code == 1
    assert [(row["prompt"], row["file"]) for row in json.loads(reply.stdout)] == [("a photo of two cats", "Bench")]


def test_a_store_of_test_prompts_is_not_learned_from(published, tmp_path):
    with pytest.raises(UserError, match=r"rollouts of 1 test prompts of Bench"):
        refuse_tests_in_store(tmp_path, [Prompt("a cat"), Prompt(TEST_SET[0]), Prompt(TEST_SET[0])])
    refuse_tests_in_store(tmp_path, [Prompt("a cat")])


def test_a_corpus_of_prompts_leaves_test_prompts_out(published, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text(f"a cat\n{TEST_SET[0]}\na dog\n")
    counts = Counter()
    assert [item.prompt.text for item in PromptSource(path=path).items(counts)] == ["a cat", "a dog"]
    assert counts["test prompts left out"] == 1


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
    tests = ["geneval", "geneval/generation_prompts.txt", "geneval2/geneval2_data.jsonl", "dpg_bench", "t2i_compbench/color_val.txt",
             "t2i_compbench/shape_val_unseen.txt", "unigenbench/test_prompts_en.csv"]  # fmt: skip
    for name in tests:
        with pytest.raises(UserError, match="is the test set of"):
            load_prompts(DataSettings(source=str(folder / name)))
    # 8 × 700 train prompts, of which 14 are test prompts
    assert len(load_prompts(DataSettings(source=str(folder / "t2i_compbench")))) == 5586
    ours = load_prompts(DataSettings(source=str(folder / "t2i_r1_train")))
    assert len(ours) == 7223 - 27 and all(prompt.nouns for prompt in ours if prompt.tag == "spatial")
    with pytest.raises(UserError, match="training prompts are test prompts of T2I-CompBench"):
        load_prompts(DataSettings(source=str(folder / "t2i_compbench/color.txt")))


def test_the_files_of_hashes_are_those_of_the_published_prompts(shared_dir, tmp_path):
    folder = shared_dir / "benchmarks"
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    assert hashes.write_hashes(folder, tmp_path)["geneval.txt"] == 553
    for file in hashes.TEST_SETS:
        assert (tmp_path / file).read_text() == (Path(hashes.__file__).parent / file).read_text()


def test_a_file_says_how_many_prompts_were_read(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("a cat\na dog\n")
    load_prompts(DataSettings(source=str(tmp_path / "mine.txt")))
    assert capsys.readouterr().err == f"prompts of {tmp_path / 'mine.txt'}: 2 read\n"
