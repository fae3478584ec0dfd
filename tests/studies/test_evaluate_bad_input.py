"""What is wrong with pictures, prompts or judges: named, counted, never scored; and said before anything is drawn."""

import csv
import json

import numpy as np
import pytest
from tests.benchmarks.compbench.stand_ins import parse
from tests.benchmarks.dpg.test_benchmark import COLUMNS
from tests.benchmarks.helpers import BROKEN, PixelQuestioner, picture, pictures_of
from tests.studies.test_evaluate import DOGS, PIXEL, official, prompt_file, verb

from thinkdraw.benchmarks import BENCHMARKS, benchmark_class
from thinkdraw.benchmarks.base import PictureSet
from thinkdraw.benchmarks.compbench.benchmark import CompBench
from thinkdraw.benchmarks.dpg.benchmark import DpgBench
from thinkdraw.benchmarks.geneval.benchmark import GenEval
from thinkdraw.benchmarks.geneval.files import write_prompt_folder
from thinkdraw.data.structure.noun_chunks import write_parses
from thinkdraw.errors import UserError
from thinkdraw.images import to_png

NO_COLOURS = ("judges.colors=none",)
SAYS = "tests.benchmarks.compbench.stand_ins:Says"
ONLY_QUESTIONS = ("judges.detector=none", "judges.depth=none", "judges.scorer=none")


class Fixed(PixelQuestioner):
    """P(yes) = value / 100, and a broken picture raises."""

    name = "fixed"

    def answer(self, pictures, questions):
        if BROKEN in pictures[:, 0, 0, 0].tolist():
            raise RuntimeError("out of memory")
        return super().answer(pictures, questions)


QUESTIONER = "tests.studies.test_evaluate_bad_input:Fixed"


def evaluated(monkeypatch, capsys, *arguments, code=0):
    """(what is printed, what summary.json holds)."""
    ended, shown = verb(monkeypatch, capsys, *arguments, "--json")
    assert ended == code, shown.err
    return json.loads(shown.out)[0] if code == 0 else shown.err.strip()


def spoilt_geneval(folder):
    """Pictures 1 1 1 1, but 0 1 1 0 of prompts 2 and 5; then: one broken for the judge, one absent, one cut, one of another
    size, and two files that nobody asked for."""
    official(folder)
    write_prompt_folder(folder, pictures_of(DOGS[2], BROKEN, 1, 1, 0, index=2))
    (folder / "00001/samples/0003.png").unlink()
    cut = folder / "00004/samples/0000.png"
    cut.write_bytes(cut.read_bytes()[:40])
    (folder / "00003/samples/0000.png").write_bytes(to_png(picture(1, size=6)))
    for name in ("cat.jpg", "00005/samples/0004.png"):
        (folder / name).write_bytes(to_png(picture(1)))
    return folder


def test_all_that_is_wrong_with_a_folder_is_named_and_counted_and_nothing_of_it_is_scored(
    monkeypatch, capsys, tmp_path
):
    pictures, judge = spoilt_geneval(tmp_path / "pictures"), f"detector={PIXEL}"
    arguments = (f"images={pictures}", "geneval", f"prompts={prompt_file(tmp_path)}", f"judges.{judge}")
    given = (*arguments, "judges.detector.raises=true", *NO_COLOURS, "--out", tmp_path / "out")
    summary = evaluated(monkeypatch, capsys, *given)
    # prompts are one of each task: 1, 1 of three, 2 of three, 1, 1 of three, 2 of four
    assert summary["score"] == pytest.approx((1 + 1 + 2 / 3 + 1 + 1 + 1 / 2) / 6)
    assert (summary["pictures"], summary["no_verdict"]) == (21, 3)
    notes = "\n".join(summary["notes"])
    assert "1 pictures are missing: prompt 1 picture 3" in notes
    assert (
        "2 files were not judged: 1 not asked for (00005/samples/0004.png); 1 not where the layout has pictures (cat.jpg)"
        in notes
    )
    assert "pictures differ in size: 21 of 8×8, 1 of 6×6" in notes
    assert "1 pictures could not be judged: prompt 2 picture 0: the judge failed: OwnCodeError: judge" in notes
    assert "raised RuntimeError: out of memory" in notes and "1 pictures cannot be read: prompt 4 picture 0" in notes
    assert "00004/samples/0000.png cannot be read" in notes
    assert "has 6 prompts, geneval has 553" in notes
    rows = [json.loads(line) for line in (tmp_path / "out/geneval/pixel-pixel-detector/results.jsonl").open()]
    assert [(r["prompt_index"], r["sample"]) for r in rows if r["verdict"] is None] == [(1, 3), (2, 0), (4, 0)]


def test_a_judge_that_fails_too_often_stops_the_run_in_one_line_and_goes_on_where_it_is_allowed(
    monkeypatch, capsys, tmp_path
):
    values = (BROKEN, 1, 1, 1, 1, BROKEN)  # pictures 0 and 3 of two prompts: 4 of 24, and 2 are allowed
    given = (f"images={official(tmp_path / 'pictures', values)}", "geneval", "--out", tmp_path / "out")
    given = (*given, f"prompts={prompt_file(tmp_path)}", f"judges.detector={PIXEL}", *NO_COLOURS)
    said = evaluated(monkeypatch, capsys, *given, code=2)
    assert "geneval[pixel:pixel-detector] gave no verdict on 4 of 24 pictures" in said and len(said.splitlines()) == 1
    summary = evaluated(monkeypatch, capsys, *given, "max_no_verdict_frac=0.2")
    assert (summary["score"], summary["pictures"], summary["no_verdict"]) == (1, 20, 4)


def dpg_table(folder, items=("a", "b", "c", "d")):
    path = folder / "dpg_bench.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for item in items:
            for number, parent, kind in ((1, 0, "entity - whole (dog)"), (2, 1, "relation - spatial (dog)")):
                table.writerow([item, f"A dog, {item}.", "", number, parent, "x", "x", kind, f"Is there {item}?"])
    return path


def dpg_grids(folder, prompts):
    """a is right in three of four quarters, and one of b's breaks the judge; c's is no grid, d's is absent, z is nobody's."""
    sets = [
        PictureSet(i, prompts[i], (0, 1, 2, 3), tuple(picture(v) for v in values))
        for i, values in enumerate([(60, 60, 60, 40), (60, 60, 60, BROKEN)])
    ]
    DpgBench().export_official(folder, prompts, sets)
    (folder / "c.png").write_bytes(to_png(np.full((16, 18, 3), 60, dtype=np.uint8)))
    (folder / "z.png").write_bytes(to_png(picture(60, 16)))
    return folder


def test_grids_that_are_absent_or_no_grids_are_named_and_fixed_mode_refuses_the_absent_one(
    monkeypatch, capsys, tmp_path
):
    table = dpg_table(tmp_path)
    grids = dpg_grids(tmp_path / "grids", DpgBench(mode="fixed").prompts(table))
    given = (f"images={grids}", "dpg", f"prompts={table}", f"judges.questioner={QUESTIONER}")
    given = (*given, "max_no_verdict_frac=0.4", "--out", tmp_path / "out")
    said = evaluated(monkeypatch, capsys, *given, "settings.mode=fixed", code=2)
    assert "4 pictures of 1 items are missing (d), which mode=fixed refuses" in said and len(said.splitlines()) == 1
    summary = evaluated(monkeypatch, capsys, *given)
    # the table's first row is skipped, and with it a, of which the second question then has no parent; b alone is scored
    assert (summary["score"], summary["pictures"], summary["no_verdict"]) == (1, 3, 13)
    notes = "\n".join(summary["notes"])
    assert "4 pictures are missing: prompt 3 picture 0" in notes and "1 files were not judged: 1 of an item" in notes
    assert (
        "1 pictures could not be judged: prompt 1 picture 3: the judge failed" in notes
        and "4 pictures cannot be" in notes
        and "1 items are dr" in notes
    )
    assert "c.png: 18×16 pixels are not a 2×2 grid of equal squares" in notes
    (grids / "d.png").write_bytes((grids / "a.png").read_bytes())
    fixed = evaluated(monkeypatch, capsys, *given, "settings.mode=fixed")
    # a and d: 3 of 4; b: 3 of 3; c: no verdict. The overall is the mean over items
    assert fixed["score"] == pytest.approx((0.75 + 0.75 + 1) / 3)
    assert (fixed["pictures"], fixed["no_verdict"]) == (11, 5)


def compbench_prompts(folder, prompts=("a red dog", "a green dog", "a big cat")):
    (folder / "data").mkdir()
    (folder / "data/color_val.txt").write_text("\n".join(prompts))
    write_parses(folder / "chunks.jsonl", prompts, parse)
    return folder / "data"


def test_samples_that_are_absent_or_nobodys_or_break_the_judge_are_named(monkeypatch, capsys, tmp_path):
    data, layout = compbench_prompts(tmp_path), tmp_path / "layout"
    prompts = CompBench().prompts(data)
    values = [(50, 100), (50, 50), (100, BROKEN)]
    sets = [pictures_of(prompts[i], *values[i], index=i) for i in range(3)]
    CompBench().export_official(layout, prompts, sets)
    samples = layout / "color" / "samples"
    (samples / "a green dog_000003.png").unlink()
    (samples / "a blue dog_000006.png").write_bytes(to_png(picture(100)))
    given = (f"images={layout}", "compbench", f"prompts={data}", "samples=2", *ONLY_QUESTIONS)
    given = (
        *given,
        f"judges.questioner={SAYS}",
        f"settings.chunks={tmp_path / 'chunks.jsonl'}",
        "--out",
        tmp_path / "out",
    )
    summary = evaluated(monkeypatch, capsys, *given)
    # one chunk each, so a picture's score is its P(yes): (0.5 + 1 + 0.5 + 1) / 4
    assert summary["per_task"]["color"]["value"] == 0.75 and (summary["pictures"], summary["no_verdict"]) == (4, 2)
    notes = "\n".join(summary["notes"])
    assert "1 pictures are missing: prompt 1 picture 1" in notes and "a blue dog_000006.png" in notes
    assert "1 pictures could not be judged: prompt 2 picture 1: the questioner gave no verdict" in notes
    official_file = tmp_path / "out/compbench/says/official/color/annotation_blip/vqa_result.json"
    assert [row["answer"] for row in json.loads(official_file.read_text())] == [
        "0.5000", "1.0000", "0.5000", None, "1.0000", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((f"judges.questioner={SAYS}", "settings.chunks=chunks.jsonl"), "chunks.jsonl has no row for prompt 'a n"),
        ((f"judges.questioner={SAYS}", "settings.chunks=absent.jsonl"), "absent.jsonl"),
        (("judges.questioner=none", "settings.chunks=chunks.jsonl"), "these prompts need a questioner"),
    ],
)
def test_what_compbench_lacks_is_said_before_a_checkpoint_is_opened(monkeypatch, capsys, tmp_path, arguments, says):
    monkeypatch.chdir(tmp_path)
    data = compbench_prompts(tmp_path)
    if "no row" in says:
        (data / "color_val.txt").write_text("a red dog\na new dog")
    given = ("nowhere", "compbench", "prompts=data", "--out", "out", *ONLY_QUESTIONS, *arguments)
    said = evaluated(monkeypatch, capsys, *given, code=2)
    assert says in said and len(said.splitlines()) == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name not in ("compbench", "own")])
def test_a_benchmark_says_which_judge_it_cannot_do_without(name):
    class_ = benchmark_class(name)
    role = next(iter(class_.roles))
    with pytest.raises(UserError, match=rf"{name} needs a judge of '{role}'.*judges.{role}=NAME"):
        class_().check_prompts(DOGS)


def test_a_class_that_the_detector_calls_otherwise_is_said_before_drawing():
    class Knows:
        names = ("cat",)

        def detect(self, pictures, labels=None):
            raise AssertionError("no picture is looked at")

    with pytest.raises(UserError, match="has no class 'dog'"):
        GenEval(Knows()).check_prompts(DOGS)


def test_a_table_that_ends_in_the_middle_of_a_line_is_named(monkeypatch, capsys, tmp_path):
    table = dpg_table(tmp_path)
    grids = dpg_grids(tmp_path / "grids", DpgBench(mode="fixed").prompts(table))
    table.write_bytes(table.read_bytes()[:-30])
    given = (f"images={grids}", "dpg", f"prompts={table}", f"judges.questioner={QUESTIONER}")
    said = evaluated(monkeypatch, capsys, *given, code=2)
    assert "dpg_bench.csv line 9 has too few columns" in said and len(said.splitlines()) == 1
