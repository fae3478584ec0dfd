"""`thinkdraw eval` as a whole: checkpoints and folders in, labelled scores with everything that makes them comparable out."""

import json
import sys

import numpy as np
import pytest
import torch
from tests.benchmarks.helpers import PixelDetector, geneval_prompt, pictures_of

import thinkdraw
from thinkdraw import cli
from thinkdraw.benchmarks import benchmark_class
from thinkdraw.benchmarks.base import PictureSet
from thinkdraw.benchmarks.dpg.files import answer_record
from thinkdraw.benchmarks.geneval.files import metadata_of, write_prompt_folder
from thinkdraw.errors import UserError
from thinkdraw.lab import checkpoint_path
from thinkdraw.lab.prompts import GENEVAL_TASKS, prompt_set
from thinkdraw.lab.scenes import draw, random_scene
from thinkdraw.runtime.formats.sealed import read_sealed
from thinkdraw.studies.evaluate import run
from thinkdraw.studies.evaluate_import import compare_folders, import_official
from thinkdraw.studies.evaluate_open import EvaluateConfig, lab_prompts
from thinkdraw.types import Question

DOGS = [geneval_prompt("dog", i, tag=GENEVAL_TASKS[i % 6]) for i in range(6)]
PIXEL = "tests.benchmarks.helpers:PixelDetector"
needs_lab = pytest.mark.skipif(not (checkpoint_path() / "config.json").exists(), reason="the lab checkpoint is absent")


def prompt_file(folder, prompts=DOGS):
    path = folder / "geneval" / "evaluation_metadata.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(metadata_of(p)) + "\n" for p in prompts))
    return path


def official(folder, values=(1, 1, 0, 1, 1, 0)):
    for i, value in enumerate(values):
        write_prompt_folder(folder, pictures_of(DOGS[i], value, 1, 1, value, index=i))
    return folder


def config(**more):
    return EvaluateConfig(**{"judges": {"detector": {"name": PIXEL}, "colors": {"name": "none"}}} | more)


def verb(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["thinkdraw", "eval", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0), capsys.readouterr()


@needs_lab
def test_a_checkpoint_is_drawn_judged_exported_and_scored_again_from_the_official_layout(monkeypatch, capsys, tmp_path):
    prompts = lab_prompts("lab-geneval", "test", 12)
    path = prompt_file(tmp_path, prompts[:5])
    (tmp_path / "vqa.jsonl").write_text(
        '{"image": "00000_0.png", "question": "is the background white?", "answer": "no"}\n'
    )
    out, layout = tmp_path / "out", tmp_path / "layout"
    detector = ("judges.detector=lab-detector", "judges.colors=none")
    common = ("geneval", f"prompts={path}", "samples=2", *detector, "--json")
    code, shown = verb(
        monkeypatch, capsys, "lab", *common, "--out", out, f"export_official={layout}", f"vqa={tmp_path / 'vqa.jsonl'}"
    )
    assert code == 0, shown.err
    (summary,) = json.loads(shown.out)
    assert summary["label"] == "geneval[lab-detector]" and summary["pictures"] == 10 and summary["prompts"] == 5
    assert summary["judges"]["detector"]["name"] == "lab-detector" and summary["sampling"]["thought"] == "inline"
    assert len(summary["prompts_sha256"]) == 64 and summary["policy"] == "lab" and summary["revision"]
    assert any("has 5 prompts, geneval has 553" in note for note in summary["notes"])
    assert summary["latency"]["off"]["text_tokens"] == 0 < summary["latency"]["inline"]["text_tokens"]
    assert summary["drawing"]["image_tokens"] == 64 and 1 <= summary["diversity"]["vendi"]["value"] <= 2
    assert summary["understanding"]["questions"] == 112 and summary["understanding"]["vqa"]["num_no_verdict"] == 1
    folder = out / "geneval" / "lab-detector"
    assert read_sealed(folder / "summary.json", "") == summary
    assert sorted(p.name for p in layout.iterdir()) == [f"{i:05d}" for i in range(5)]

    code, shown = verb(monkeypatch, capsys, f"images={layout}", *common, "--out", tmp_path / "again")
    (again,) = json.loads(shown.out)
    assert (again["score"], again["low"], again["per_task"]) == (summary["score"], summary["low"], summary["per_task"])
    code, shown = verb(monkeypatch, capsys, f"compare=[{out / 'geneval'}, {tmp_path / 'again' / 'geneval'}]", "--json")
    (found,) = json.loads(shown.out)
    assert found["difference"]["value"] == 0 and found["difference"]["low"] < 0 < found["difference"]["high"]
    assert found["understanding"]["a"]["questions"] == 112 and found["understanding"]["b"] is None
    assert all(score["value"] == 0 and score["low"] != score["value"] for score in found["per_task"].values())


def test_pictures_that_anything_drew_are_scored_in_the_official_layout(monkeypatch, capsys, tmp_path):
    path, pictures = prompt_file(tmp_path), official(tmp_path / "pictures")
    (pictures / "00001/samples/0003.png").unlink()
    arguments = (f"images={pictures}", "geneval", f"prompts={path}", "--out", tmp_path / "out")
    code, shown = verb(monkeypatch, capsys, *arguments, f"judges.detector={PIXEL}", "judges.colors=none")
    assert code == 0, shown.err
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[0] == ["geneval[pixel:pixel-detector]"]
    # two pictures of each prompt show a dog, the other two as well but for prompts 2 and 5: (1 + 1 + 1/2 + 1 + 1 + 1/2)/6
    assert next(line[:2] for line in lines if line[:1] == ["overall"]) == ["overall", "0.833"]
    assert "23 pictures of 6 prompts, 1 without verdict" in shown.out
    assert "judge of detector: pixel:pixel-detector, revision r1, path org/pixel-detector" in shown.out
    assert "1 pictures are missing: prompt 1 picture 3" in shown.out and "sha256" in shown.out


def test_prompts_are_found_below_the_environment_variable(monkeypatch, tmp_path):
    prompt_file(tmp_path / "benchmarks")
    monkeypatch.setenv("THINKDRAW_BENCHMARKS", str(tmp_path / "benchmarks"))
    (found,) = run(config(benchmarks=["geneval"], images=official(tmp_path / "pictures"), out=tmp_path / "out"))
    assert found.summary["prompts_file"] == "evaluation_metadata.jsonl" and found.summary["score"] == pytest.approx(
        5 / 6
    )


def test_the_official_results_and_ours_are_one_table(tmp_path):
    path, pictures = prompt_file(tmp_path), official(tmp_path / "pictures")
    (ours,) = run(config(benchmarks=["geneval"], images=pictures, prompts=path, out=tmp_path / "out"))
    written = ours.folder / "official" / "results.jsonl"
    theirs = import_official("geneval", written, path, tmp_path / "imported")
    assert (theirs.summary["score"], theirs.summary["per_task"]) == (ours.summary["score"], ours.summary["per_task"])
    # a file of ours keeps its label; only one that names no other judge is the official scorer's
    assert theirs.report.label == "geneval[pixel:pixel-detector]"
    anonymous = tmp_path / "anonymous.jsonl"
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    anonymous.write_text("".join(json.dumps({k: v for k, v in r.items() if k != "label"}) + "\n" for r in rows))
    official_ = import_official("geneval", anonymous, path, tmp_path / "anonymous")
    assert official_.report.label == "geneval" and "does not say whose judge" in official_.report.notes[0]
    assert compare_folders(ours.folder, theirs.folder)[0]["difference"]["value"] == 0
    with pytest.raises(UserError, match=r"label is 'geneval\[pixel:pixel-detector\]' and 'geneval'"):
        compare_folders(ours.folder, official_.folder)


def test_a_skill_that_is_broken_is_found_in_its_column(tmp_path):
    rng, examples = np.random.default_rng(0), prompt_set("geneval", "test", 60)
    for name in ("good", "bad"):
        for i, example in enumerate(examples):
            broken = name == "bad" and example.prompt.tag == "position"
            scenes = [random_scene(2, rng) if broken else example.scene(rng) for _ in range(2)]
            write_prompt_folder(tmp_path / name, PictureSet(i, example.prompt, (0, 1), tuple(map(draw, scenes))))
        run(
            EvaluateConfig(
                benchmarks=["lab-geneval"], images=tmp_path / name, count=60, samples=2, out=tmp_path / f"{name}-out"
            )
        )
    (found,) = compare_folders(tmp_path / "good-out", tmp_path / "bad-out")
    gone = found["per_task"].pop("position")
    assert gone["low"] > 0.5 and all(score["value"] == 0 and score["low"] < 0 for score in found["per_task"].values())
    assert (
        found["difference"]["value"] == pytest.approx(gone["value"] / 6)
        and found["label"] == "lab-geneval[lab-detector]"
    )


def test_all_of_the_labs_families_go_through_a_benchmarks_class(tmp_path):
    rng, judges = np.random.default_rng(0), {"questioner": {"name": "tests.studies.test_evaluate:AlwaysYes"}}
    for name, columns in (
        ("lab-compbench", ["color", "shape", "texture", "spatial", "numeracy", "complex"]),
        ("lab-dense", ["global", "entity", "attribute", "relation"]),
    ):
        examples, folder = prompt_set(name.removeprefix("lab-"), "ood", 12), tmp_path / name
        class_ = benchmark_class({"lab-dense": "dpg"}.get(name, "compbench"))()
        sets = [PictureSet(i, e.prompt, tuple(range(4)), (draw(e.scene(rng)),) * 4) for i, e in enumerate(examples)]
        class_.export_official(folder, [e.prompt for e in examples], sets)
        (found,) = run(
            EvaluateConfig(
                benchmarks=[name], images=folder, split="ood", count=12, samples=4, judges=judges, out=tmp_path / "out"
            )
        )
        assert list(found.report.columns) == columns and found.score.num_no_verdict == 0
        assert found.report.label == f"{name}[always-yes{'+lab-detector' if name == 'lab-compbench' else ',fixed'}]"
        assert found.summary["missing"] == found.summary["extra_files"] == 0
        assert (tmp_path / "out" / name).is_dir() and any((found.folder / "official").iterdir())
    (folder / "lab-dense-ood-0003.png").unlink()
    with pytest.raises(UserError, match=r"4 pictures of 1 items are missing \(lab-dense-ood-0003\)"):
        run(EvaluateConfig(benchmarks=[name], images=folder, split="ood", count=12, judges=judges, out=tmp_path / "2"))


class AlwaysYes:
    name = "always-yes"

    def answer(self, pictures, questions):
        return torch.ones(len(questions))


def written(folder, benchmark, rows):
    """An evaluation's folder, as far as a comparison reads it."""
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps({"benchmark": benchmark, "label": f"{benchmark}[x]"}))
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def dpg_row(prompt, relation, **more):
    categories = ("entity - whole", "relation - spatial")
    asked = [Question(i, "", category=category) for i, category in enumerate(categories, start=1)]
    answers = [answer_record(question, p_yes=p) for question, p in zip(asked, (1.0, relation))]
    row = {"prompt_index": prompt, "prompt_id": f"item{prompt}", "tag": "dpg", "sample": 0, "answers": answers}
    return row | {"verdict": (1 + relation) / 2} | more


def test_columns_that_are_not_parts_of_the_overall_are_compared_as_well(tmp_path):
    # b has no relation right: entities differ by 0, relations by 1, pictures, of two questions each, by 1/2
    a = written(tmp_path / "a", "dpg", [dpg_row(i, 1.0) for i in range(4)])
    b = written(tmp_path / "b", "dpg", [dpg_row(i, 0.0) for i in range(4)])
    (found,) = compare_folders(a, b)
    assert {name: score["value"] for name, score in found["per_task"].items()} == {"entity": 0, "relation": 1}
    assert found["difference"]["value"] == 0.5
    rows = [[{"prompt_index": 0, "prompt_id": "0", "tag": "3", "sample": 0, "verdict": gm, "mean": am, "scores": scores,
              "skills": ["object", "count"]}] for gm, am, scores in ((0.6, 0.65, [0.9, 0.4]), (0.3, 0.5, [0.9, 0.1]))]  # fmt: skip
    sides = [written(tmp_path / f"geneval2-{i}", "geneval2", side) for i, side in enumerate(rows)]
    (found,) = compare_folders(*sides)
    values = {name: score["value"] for name, score in found["per_task"].items()}
    assert values == pytest.approx({"AM": 0.15, "object": 0, "count": 0.3, "3 atoms": 0.3})
    assert found["difference"]["value"] == pytest.approx(0.3)


def test_a_prompt_that_was_judged_on_one_side_only_is_refused_and_one_that_was_judged_on_none_is_not(tmp_path):
    a = written(tmp_path / "a", "dpg", [dpg_row(0, 1.0), dpg_row(1, 1.0, verdict=None, left_out=True)])
    b = written(tmp_path / "b", "dpg", [dpg_row(0, 1.0)])
    assert compare_folders(a, b)[0]["difference"]["prompts"] == compare_folders(b, a)[0]["difference"]["prompts"] == 1
    c = written(tmp_path / "c", "dpg", [dpg_row(0, 1.0), dpg_row(1, 1.0)])
    for pair in ((b, c), (c, b)):
        with pytest.raises(UserError, match="needs the same prompts"):
            compare_folders(*pair)


def test_judges_of_another_revision_are_not_compared(tmp_path):
    path, pictures = prompt_file(tmp_path), official(tmp_path / "pictures")
    for revision in ("r1", "r2"):
        judges = {
            "detector": {"name": "tests.studies.test_evaluate:Revised", "revision": revision},
            "colors": {"name": "none"},
        }
        run(config(benchmarks=["geneval"], images=pictures, prompts=path, out=tmp_path / revision, judges=judges))
    with pytest.raises(UserError, match="the judge of detector is r1 and r2"):
        compare_folders(tmp_path / "r1", tmp_path / "r2")


class Revised(PixelDetector):
    def __init__(self, revision):
        super().__init__()
        self.revision = revision


@needs_lab
def test_a_policy_that_is_open_is_evaluated_by_any_benchmark(tmp_path):
    policy, path = (
        thinkdraw.load_policy("lab", precision="bf16"),
        prompt_file(tmp_path, lab_prompts("lab-geneval", "test", 2)),
    )
    judges = {"detector": "lab-detector", "colors": {"name": "none"}}
    found = thinkdraw.evaluate(policy, "geneval", prompts=path, judges=judges, samples=1, folder=tmp_path / "out")
    assert found.report.label == "geneval[lab-detector]" and found.score.pictures == 2
    assert found.summary["revision"] == found.summary["policy"] == policy.revision
    own = thinkdraw.evaluate(policy, "lab-geneval", count=6, samples=1)
    assert 0 <= own.score.value <= 1 and own.settings["family"] == "geneval"


@needs_lab
def test_questions_and_single_drawings_are_as_many_as_asked(monkeypatch, capsys, tmp_path):
    path = prompt_file(tmp_path, lab_prompts("lab-geneval", "test", 1))
    code, shown = verb(
        monkeypatch, capsys, "lab", "geneval", f"prompts={path}", "samples=1", "--out", tmp_path / "out",
        "judges.detector=lab-detector", "judges.colors=none", "questions_per_type=2", "latency_pictures=0", "--json",
    )  # fmt: skip
    (summary,) = json.loads(shown.out)
    assert code == 0 and summary["understanding"]["questions"] == 14 and "latency" not in summary  # 7 types of 2


def test_another_judge_has_a_folder_of_its_own_and_other_settings_are_refused(tmp_path):
    path, pictures = prompt_file(tmp_path), official(tmp_path / "pictures")
    given = {"benchmarks": ["geneval"], "images": pictures, "prompts": path, "out": tmp_path / "out"}
    (first,) = run(config(**given))
    other = {"detector": {"name": "tests.studies.test_evaluate:OtherDetector"}, "colors": {"name": "none"}}
    (second,) = run(config(**given, **{"judges": other}))
    assert first.folder != second.folder and first.folder.parent == second.folder.parent
    with pytest.raises(UserError, match=r"holds an evaluation with samples=4, not 2"):
        run(config(**given, samples=2))


class OtherDetector(PixelDetector):
    name, path = "other", ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("geneval",), "give a checkpoint"),
        (("lab", "genevil"), "did you mean"),
        (("lab", "geneval"), "THINKDRAW_BENCHMARKS"),
        (("lab", "geneval", "prompts=nowhere"), "nowhere is not there"),
        (("lab", "geneval", "prompts=.", "judges.teacher=vlm"), "judge role 'teacher'"),
        (("lab", "geneval", "prompts=.", "--judge", "teacher"), "is not ROLE=NAME"),
        (("lab", "geneval", "prompts=.", "judges.detector=owl"), "unknown judge 'owl'"),
        (("lab", "geneval", "prompts=.", f"judges.detector={PIXEL}", "judges.colors=none",
          "settings.bach=3"), "'bach'"),
        (("images=nowhere", "geneval", "prompts=."), "nowhere is not a folder"),
        (("images=.", "geneval", "prompts=.", f"judges.detector={PIXEL}", "judges.colors=none"),
         "holds no picture in geneval's official layout"),
        (("images=.", "lab-compbench"), "holds no picture in lab-compbench's official layout"),
        (("images=.", "lab-sparse"), "unknown benchmark 'lab-sparse'"),
        (("lab", "lab-sparse"), "the lab has lab-geneval"),
        (("import_official=nowhere.jsonl", "geneval"), "nowhere.jsonl does not exist"),
        (("import_official=geneval", "geneval", "dpg"), "reads one benchmark's file"),
        (("compare=[., nowhere]",), "hold no evaluation"),
        (("lab", "count=3"), "at least 6 prompts"),
    ],
)  # fmt: skip
def test_what_a_user_can_get_wrong_is_one_line(monkeypatch, capsys, tmp_path, arguments, says):
    monkeypatch.delenv("THINKDRAW_BENCHMARKS", raising=False)
    monkeypatch.chdir(tmp_path)
    prompt_file(tmp_path)
    code, shown = verb(monkeypatch, capsys, *arguments)
    lines = [line for line in shown.err.strip().splitlines() if not line.startswith("judge ")]  # of one that was opened
    assert code == 2 and says in shown.err and len(lines) == 1, shown.err


def test_a_prompt_file_that_was_cut_off_is_named_with_its_line(monkeypatch, capsys, tmp_path):
    path = prompt_file(tmp_path)
    path.write_text(path.read_text()[:-30])
    pictures = official(tmp_path / "pictures")
    arguments = (f"images={pictures}", "geneval", f"prompts={path}", f"judges.detector={PIXEL}")
    code, shown = verb(monkeypatch, capsys, *arguments, "judges.colors=none")
    assert code == 2 and "evaluation_metadata.jsonl line 6 is not JSON" in shown.err


def test_what_both_models_understand_stands_beside_their_difference(monkeypatch, capsys, tmp_path):
    sides = [written(tmp_path / name, "dpg", [dpg_row(i, 1.0) for i in range(4)]) for name in "ab"]
    for folder, right in zip(sides, (1.0, 0.0)):
        known = {"accuracy": right, "low": right, "high": right, "questions": 8, "asked": "8 questions"}
        known["verdicts"] = {"count": [right] * 8}
        (folder / "summary.json").write_text(json.dumps({"understanding": known}))
    code, shown = verb(monkeypatch, capsys, "compare=[{}, {}]".format(*sides))
    assert code == 0, shown.err
    seen = "A 1.000 [1.000, 1.000], B 0.000 [0.000, 0.000], A − B 1.000 ["
    assert f"understanding: {seen}" in shown.out
    (sides[1] / "summary.json").unlink()
    _, shown = verb(monkeypatch, capsys, "compare=[{}, {}]".format(*sides))
    assert "understanding: A 1.000 [1.000, 1.000], B was not asked" in shown.out


@needs_lab
def test_the_labs_own_evaluation_asks_its_questions_as_well(monkeypatch, capsys):
    code, shown = verb(monkeypatch, capsys, "lab", "-n", 6, "samples=1", "thought=off")
    assert code == 0 and "understanding: " in shown.out and "of 112 questions" in shown.out  # 7 types of 16
