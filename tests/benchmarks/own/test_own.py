"""Prompts and pictures of one's own, judged by a reward: a benchmark like the others."""

import html
import json
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.benchmarks.helpers import BROKEN, picture, pictures_of

from thinkdraw import cli
from thinkdraw.benchmarks import load_benchmark
from thinkdraw.benchmarks.own.benchmark import OwnPrompts
from thinkdraw.images import to_png
from thinkdraw.lab import checkpoint_path
from thinkdraw.rewards.judging import finished_rollouts
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.studies.evaluate import run
from thinkdraw.studies.evaluate_import import EvalConfig
from thinkdraw.types import Prompt, Rollouts

HERE = "tests.benchmarks.own.test_own"
BRIGHTNESS = f"{HERE}:brightness"
needs_lab = pytest.mark.skipif(not (checkpoint_path() / "config.json").exists(), reason="the lab checkpoint is absent")


def brightness(rollouts: Rollouts) -> torch.Tensor:
    """The first pixel, 0..1; no verdict on a broken picture."""
    value = rollouts.pictures[:, 0, 0, 0].float()
    return torch.where(value == BROKEN, torch.nan, value / 100)


def words(rollouts: Rollouts) -> torch.Tensor:
    """Words of the thought, halved where it was cut."""
    cut = rollouts.text_was_cut()
    return torch.tensor([len(t.split()) / (1 + c) for t, c in zip(rollouts.thoughts, cut.tolist(), strict=True)])


def verb(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["thinkdraw", "eval", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0), capsys.readouterr()


def write_picture(path, value, size=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(to_png(picture(value, size)))


def captioned(folder, pairs):
    """(name, value, caption) as NAME.png and NAME.txt."""
    for name, value, caption in pairs:
        write_picture(folder / f"{name}.png", value)
        if caption:
            (folder / f"{name}.txt").write_text(caption)
    return folder


def judged(tmp_path, **settings):
    config = EvalConfig(**{"reward": BRIGHTNESS, "out": tmp_path / "out"} | settings)
    return run(config)[0]


def test_a_prompt_counts_once_however_many_pictures_it_has_and_a_missing_verdict_is_no_zero():
    benchmark = OwnPrompts(reward=as_reward(brightness))
    cat, dog = Prompt("a cat", "0"), Prompt("a dog", "1")
    rows = benchmark.judge([pictures_of(cat, 20, 40, BROKEN, index=0), pictures_of(dog, 90, index=1)])
    assert [row["verdict"] for row in rows] == [pytest.approx(0.2), pytest.approx(0.4), None, pytest.approx(0.9)]
    assert "gave no verdict" in rows[2]["reason"]
    overall = benchmark.aggregate(rows).overall
    # (mean(.2, .4) + .9) / 2
    assert overall.value == pytest.approx(0.6) and (overall.pictures, overall.num_no_verdict) == (3, 1)


def test_pictures_of_one_prompt_are_a_group_and_sizes_never_mix():
    seen = []

    def reward(rollouts):
        seen.append((len(rollouts), rollouts.group_size, tuple(rollouts.pictures.shape[1:3])))
        return brightness(rollouts)

    sets = [pictures_of(Prompt("a"), 1, 2, index=0), pictures_of(Prompt("b"), 3, 4, index=1, size=16)]
    mixed = pictures_of(Prompt("c"), 5, index=2)
    mixed = type(mixed)(2, mixed.prompt, (0, 1), (picture(5, 8), picture(6, 16)))
    rows = OwnPrompts(reward=as_reward(reward)).judge([*sets, mixed])
    assert [row["verdict"] for row in rows] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    assert sorted(seen) == [(1, 1, (8, 8)), (1, 1, (16, 16)), (2, 2, (8, 8)), (2, 2, (16, 16))]


def test_a_reward_of_thoughts_reads_what_was_written_and_whether_it_was_cut():
    benchmark = OwnPrompts(reward=as_reward(words))
    drawn = [("one two", False), ("one two three four", True)]
    benchmark.read_drawn(
        [{"prompt_index": 0, "sample": k, "thought": t, "thought_cut": c} for k, (t, c) in enumerate(drawn)]
    )
    assert [r["verdict"] for r in benchmark.judge([pictures_of(Prompt("a"), 1, 2)])] == [2, 2]


def test_a_reward_that_does_not_apply_leaves_the_row_out():
    benchmark = load_benchmark("own", reward="thought-length")
    (row,) = benchmark.judge([pictures_of(Prompt("a"), 1)])
    assert row["verdict"] is None and row["left_out"]


def test_finished_pictures_are_rollouts_that_every_reward_can_read():
    rollouts = finished_rollouts(
        [Prompt("a")] * 2, torch.zeros(2, 8, 8, 3, dtype=torch.uint8), ["x", "y"], [True, False]
    )
    assert rollouts.text_was_cut().tolist() == [True, False] and rollouts.sampling.thought == "inline"
    plain = finished_rollouts([Prompt("a")], torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    assert plain.sampling.thought == "off" and plain.in_last_picture().tolist() == [[True]]


def test_pictures_with_captions_beside_them_are_judged_and_one_without_is_named(tmp_path):
    folder = captioned(tmp_path / "mine", [("a", 20, "a cat"), ("b", 40, "a cat"), ("c", 90, "a dog"), ("d", 99, "")])
    result = judged(tmp_path, images=folder)
    # two pictures of one caption are one prompt: ((.2 + .4)/2 + .9)/2
    assert result.summary["score"] == pytest.approx(0.6) and result.summary["prompts"] == 2
    assert result.summary["label"] == f"own[{BRIGHTNESS}]" and result.summary["judges"]["reward"]["revision"]
    assert any("1 without caption (d.png)" in note for note in result.summary["notes"])
    page = (result.folder / "pictures.html").read_text()
    assert page.count("<figure>") == 3 and page.index("a cat") < page.index("a dog")  # the lowest score first
    rows = [json.loads(line) for line in (result.folder / "results.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["a cat", "a cat", "a dog"]


def test_a_picture_that_cannot_be_read_is_counted_and_no_zero(tmp_path):
    folder = captioned(tmp_path / "mine", [("a", 20, "a cat"), ("b", 40, "a dog")])
    (folder / "c.png").write_bytes(b"no picture")
    (folder / "c.txt").write_text("a fox")
    summary = judged(tmp_path, images=folder).summary
    assert summary["score"] == pytest.approx(0.3) and (summary["no_verdict"], summary["unreadable"]) == (1, 1)


def test_a_configuration_names_it_as_a_benchmark_with_settings(tmp_path):
    folder = captioned(tmp_path / "mine", [("cat", 20, ""), ("dog", 40, "")])
    (tmp_path / "p.jsonl").write_text('{"prompt": "a cat", "id": "cat"}\n{"prompt": "a dog", "id": "dog"}\n')
    settings = {"prompts": str(tmp_path / "p.jsonl"), "reward": {"name": BRIGHTNESS, "settings": {}}}
    (result,) = run(EvalConfig(benchmarks=["own"], images=folder, settings=settings, out=tmp_path / "out"))
    assert result.summary["score"] == pytest.approx(0.3) and result.folder.parent == tmp_path / "out/own-p"


def test_metadata_tables_and_tar_files_are_folders_of_pictures_too(tmp_path):
    folder = captioned(tmp_path / "meta", [("a", 20, ""), ("b", 40, "")])
    lines = [{"file_name": "a.png", "caption": "a cat"}, {"file_name": "b.png", "text": "a dog"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert judged(tmp_path, images=folder).summary["score"] == pytest.approx(0.3)

    table = tmp_path / "table"
    table.mkdir()
    cells = [{"bytes": to_png(picture(value)), "path": "x.png"} for value in (20, 60)]
    pq.write_table(pa.table({"image": cells, "caption": ["a cat", "a dog"]}), table / "train-00000.parquet")
    result = judged(tmp_path, images=table, out=tmp_path / "out2")
    assert result.summary["score"] == pytest.approx(0.4) and result.summary["missing"] == 0

    samples = tmp_path / "tars"
    samples.mkdir()
    with tarfile.open(samples / "0.tar", "w") as tar:
        for file in sorted(captioned(tmp_path / "in", [("a", 20, "a cat"), ("b", 80, "a dog")]).iterdir()):
            tar.add(file, file.name)
    assert judged(tmp_path, images=samples, out=tmp_path / "out3").summary["score"] == pytest.approx(0.5)


def test_prompts_name_pictures_by_id_by_place_or_by_a_column(tmp_path):
    folder, prompts = tmp_path / "pictures", tmp_path / "mine.jsonl"
    prompts.write_text('{"prompt": "a cat", "id": "cat"}\n{"prompt": "a dog", "id": "dog"}\n')
    for name, value in (("cat_0", 20), ("cat_1", 40), ("dog", 90)):
        write_picture(folder / f"{name}.png", value)
    write_picture(folder / "else.png", 7)
    summary = judged(tmp_path, images=folder, prompts=prompts, samples=1).summary
    assert summary["score"] == pytest.approx(0.55) and summary["extra_files"] == 2
    named = tmp_path / "named.jsonl"
    named.write_text('{"caption": "a cat", "file_name": "else.png"}\n{"caption": "a dog", "file_name": "gone.png"}\n')
    summary = judged(tmp_path, images=folder, prompts=named, out=tmp_path / "named").summary
    assert summary["score"] == pytest.approx(0.07) and summary["missing"] == 1


def test_an_evaluation_goes_on_and_a_changed_picture_is_judged_again(tmp_path):
    folder = captioned(tmp_path / "mine", [("a", 20, "a cat"), ("b", 40, "a dog")])
    judged(tmp_path, images=folder)
    before = (tmp_path / "out/own-mine").rglob("results.jsonl")
    size = next(before).stat().st_size
    judged(tmp_path, images=folder)
    results = next((tmp_path / "out/own-mine").rglob("results.jsonl"))
    assert results.stat().st_size == size  # nothing was judged twice
    write_picture(folder / "a.png", 60)
    assert judged(tmp_path, images=folder).summary["score"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("prompts={txt}", "reward=lab-detector"), "cannot judge 2 of 2 prompts"),
        (("prompts={txt}", "reward=lab-judge"), "has no questions"),
        (("prompts={txt}",), "reward=NAME"),
        (("reward=lab-clip",), "prompts=FILE"),
        (("lab-geneval", "prompts={txt}", "reward=lab-clip"), "judges prompts of your own"),
        (("prompts={txt}", "reward=lab-clop"), "unknown reward"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line_before_the_policy_loads(
    monkeypatch, capsys, tmp_path, arguments, says
):
    path = tmp_path / "mine.txt"
    path.write_text("a cat\na dog\n")
    monkeypatch.setattr(
        "thinkdraw.studies.evaluate.load_trained", lambda *_, **__: pytest.fail("the policy was opened")
    )
    code, shown = verb(monkeypatch, capsys, "lab", *(text.format(txt=path) for text in arguments))
    assert code == 2 and says in shown.err and shown.err.count("thinkdraw: ") == 1 and "Traceback" not in shown.err


@needs_lab
def test_own_prompts_are_drawn_judged_and_compared(monkeypatch, capsys, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("a photo of a red circle\na photo of a blue star\n")
    common = ("lab", f"prompts={path}", "reward=lab-clip", "samples=2", "latency_pictures=0", "questions_per_type=0")
    for name, seed in (("a", 0), ("b", 1)):
        code, shown = verb(monkeypatch, capsys, *common, f"seed={seed}", "--json", "--out", tmp_path / name)
        assert code == 0, shown.err
    (summary,) = json.loads(shown.out)
    assert summary["label"] == "own[lab-clip]" and summary["pictures"] == 4 and summary["low"] <= summary["score"]
    assert summary["policy"] == "lab" and summary["sampling"]["thought"] == "inline"
    drawn = [json.loads(line) for line in (tmp_path / "b/own-mine/drawn.jsonl").read_text().splitlines()]
    page = (tmp_path / "b/own-mine/lab-clip/pictures.html").read_text()
    assert all(row["thought"] in html.unescape(page) for row in drawn)
    assert {row["prompt"] for row in drawn} == set(path.read_text().split("\n")[:2]) and all(
        "thought" in r for r in drawn
    )
    code, shown = verb(monkeypatch, capsys, f"compare=[{tmp_path / 'a'}, {tmp_path / 'b'}]", "--json")
    (comparison,) = json.loads(shown.out)
    assert code == 0 and comparison["difference"]["prompts"] == 2
