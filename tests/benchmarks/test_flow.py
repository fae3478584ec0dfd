"""From files to a report: what is missing, broken, of another size or not asked for is named, and never scored silently."""

import json

import pytest
from tests.benchmarks.helpers import PixelDetector, geneval_prompt, picture, pictures_of

from thinkdraw.benchmarks.base import PictureFile
from thinkdraw.benchmarks.flow import prompt_notes, report_on, score_pictures, summary_of
from thinkdraw.benchmarks.geneval.benchmark import GenEval
from thinkdraw.benchmarks.geneval.files import find_pictures, write_prompt_folder
from thinkdraw.benchmarks.picture_files import list_pictures, read_picture_file
from thinkdraw.benchmarks.settings import git_hash_of, sha256_of
from thinkdraw.errors import UserError
from thinkdraw.images import to_png

PROMPTS = {i: geneval_prompt("dog", i) for i in range(4)}


def layout(folder, values=((1, 0), (1, 1), (0, 0), (1, 0)), size=8):
    for index, row in enumerate(values):
        write_prompt_folder(folder, pictures_of(PROMPTS[index], *row, index=index, size=size))
    return folder


def inventory(folder, samples=2, prompts=PROMPTS):
    return list_pictures(folder, find_pictures(folder, list(PROMPTS.values())), prompts, samples)


def score(pictures, out=None, detector=None, samples=2, **more):
    benchmark = GenEval(detector or PixelDetector())
    rows = score_pictures(benchmark, PROMPTS, inventory(pictures, samples), out, samples=samples, **more)
    return benchmark, rows


def verdicts(rows):
    return [row["verdict"] for row in rows]


def test_every_picture_has_a_row_in_order(tmp_path):
    _, rows = score(layout(tmp_path))
    assert [(r["prompt_index"], r["sample"]) for r in rows] == [(i, k) for i in range(4) for k in range(2)]
    assert verdicts(rows) == [1, 0, 1, 1, 0, 0, 1, 0]


def test_missing_pictures_are_named_counted_and_not_judged(tmp_path):
    layout(tmp_path)
    (tmp_path / "00001/samples/0000.png").unlink()
    benchmark, rows = score(tmp_path)
    found = inventory(tmp_path)
    report = report_on(benchmark, rows, found.notes())
    assert rows[2]["verdict"] is None and rows[2]["problem"] == "the picture is missing"
    assert (report.overall.value, report.overall.pictures, report.overall.num_no_verdict) == (3 / 7, 7, 1)
    assert "1 pictures are missing: prompt 1 picture 0" in report.notes


def test_files_that_nobody_asked_for_are_named(tmp_path):
    layout(tmp_path)
    for name in ("cat.jpg", "00000/samples/0002.png", "00009/samples/0000.png", "00000/grid.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(to_png(picture(0)))
    (note,) = inventory(tmp_path).notes()
    assert note == (
        "3 files were not judged: 1 not asked for (00000/samples/0002.png); 1 of prompts beyond the 4 there are "
        "(00009/samples/0000.png); 1 not where the layout has pictures (cat.jpg)"
    )


def test_pictures_of_another_size_are_named(tmp_path):
    layout(tmp_path)
    write_prompt_folder(tmp_path, pictures_of(PROMPTS[0], 1, 0, size=6))
    assert inventory(tmp_path).notes() == ["pictures differ in size: 6 of 8×8, 2 of 6×6"]


def test_a_damaged_picture_has_no_verdict_and_its_name_is_in_the_report(tmp_path):
    layout(tmp_path)
    path = tmp_path / "00002/samples/0001.png"
    path.write_bytes(path.read_bytes()[:40])
    benchmark, rows = score(tmp_path)
    assert verdicts(rows)[5] is None
    (note,) = report_on(benchmark, rows).notes[1:]
    assert note.startswith("1 pictures cannot be read: prompt 2 picture 1") and "0001.png cannot be read" in note


def test_a_judge_that_raises_on_one_picture_judges_the_others(tmp_path):
    benchmark, rows = score(layout(tmp_path, [(1, 0), (1, 255), (0, 0), (1, 0)]), detector=PixelDetector(raises=True))
    assert verdicts(rows) == [1, 0, 1, None, 0, 0, 1, 0]
    assert rows[3]["problem"] == "the judge failed: RuntimeError: out of memory"
    assert report_on(benchmark, rows).overall.num_no_verdict == 1


def test_too_many_failures_stop_the_run_with_the_judges_name_and_keep_what_was_judged(tmp_path):
    pictures = layout(tmp_path / "pictures", [(1, 0), (255, 255), (255, 255), (1, 0)])
    with pytest.raises(UserError, match=r"pixel-detector\] gave no verdict on 2 of 8 pictures"):
        score(pictures, tmp_path / "out", max_no_verdict_frac=0.1, prompts_at_once=1)
    assert len((tmp_path / "out/results.jsonl").read_text().splitlines()) == 4


def test_a_picture_on_which_a_judge_had_no_verdict_is_named_with_the_judge(tmp_path):
    benchmark, rows = score(layout(tmp_path, [(1, 0), (1, 255), (0, 0), (1, 0)]))
    note = report_on(benchmark, rows).notes[-1]
    assert note.startswith("1 pictures could not be judged: prompt 1 picture 1: pixel:pixel-detector gave no verdict")


def test_a_report_without_any_verdict_is_an_error(tmp_path):
    benchmark, rows = score(layout(tmp_path, [(255, 255)] * 4), max_no_verdict_frac=1.0)
    with pytest.raises(UserError, match=r"none of 8 pictures has a verdict \(pixel"):
        report_on(benchmark, rows)


def test_judged_pictures_are_not_judged_again_but_failed_and_changed_ones_are(tmp_path):
    pictures, out = layout(tmp_path / "pictures", [(1, 0), (1, 255), (0, 0), (1, 0)]), tmp_path / "out"
    score(pictures, out)
    assert score(pictures, out, detector := PixelDetector())[1] and detector.seen == 2  # prompt 1 alone
    write_prompt_folder(pictures, pictures_of(PROMPTS[1], 1, 1, index=1))
    write_prompt_folder(pictures, pictures_of(PROMPTS[3], 0, 1, index=3, size=10))
    _, rows = score(pictures, out, detector := PixelDetector())
    assert detector.seen == 4 and verdicts(rows) == [1, 0, 1, 1, 0, 0, 0, 1]
    assert score(pictures, out, detector := PixelDetector())[1] == rows and detector.seen == 0


def test_what_the_benchmark_leaves_out_by_its_own_rule_is_no_failure(tmp_path):
    class Drops(GenEval):
        def judge(self, sets):
            return [{**row, "verdict": None, "left_out": True} if row["prompt_index"] < 2 else row
                    for row in super().judge(sets)]  # fmt: skip

    pictures = inventory(layout(tmp_path / "pictures"))
    for num_judged in (8, 0):
        benchmark = Drops(detector := PixelDetector())
        rows = score_pictures(benchmark, PROMPTS, pictures, tmp_path / "out", samples=2)
        assert verdicts(rows) == [None] * 4 + [0, 0, 1, 0] and detector.seen == num_judged


def test_a_log_that_was_cut_off_in_the_middle_goes_on_to_the_same_rows(tmp_path):
    pictures = layout(tmp_path / "pictures")
    whole = score(pictures, tmp_path / "whole", prompts_at_once=1)[1]
    log = tmp_path / "whole" / "results.jsonl"
    data = log.read_bytes()
    for cut in (0, 10, len(data) // 2, len(data) - 1):
        (tmp_path / "cut").mkdir(exist_ok=True)
        (tmp_path / "cut" / "results.jsonl").write_bytes(data[:cut])
        assert score(pictures, tmp_path / "cut", prompts_at_once=1)[1] == whole
        assert all(json.loads(line) for line in (tmp_path / "cut/results.jsonl").read_text().splitlines())


def test_a_line_that_is_damaged_in_the_middle_is_named(tmp_path):
    pictures = layout(tmp_path / "pictures")
    score(pictures, tmp_path / "out")
    log = tmp_path / "out" / "results.jsonl"
    log.write_text("{broken\n" + log.read_text())
    with pytest.raises(UserError, match=r"results\.jsonl line 1 is damaged"):
        score(pictures, tmp_path / "out")


def test_only_some_pictures_are_in_memory_at_once(tmp_path):
    class Counts(GenEval):
        largest = 0

        def judge(self, sets):
            self.largest = max(self.largest, sum(len(s.pictures) for s in sets))
            return super().judge(sets)

    benchmark = Counts(PixelDetector())
    score_pictures(benchmark, PROMPTS, inventory(layout(tmp_path)), None, samples=2, prompts_at_once=2)
    assert benchmark.largest == 4  # two prompts of two pictures


def test_a_quarter_of_a_grid_is_read_and_other_shapes_are_refused(tmp_path):
    import numpy as np

    grid = np.zeros((8, 8, 3), dtype=np.uint8)
    grid[4:, :4] = 7
    (tmp_path / "grid.png").write_bytes(to_png(grid))
    quarters = {cell: read_picture_file(PictureFile(tmp_path / "grid.png", cell)).pixels for cell in ((0, 0), (1, 0))}
    assert quarters[1, 0].shape == (4, 4, 3) and quarters[1, 0].min() == 7 and quarters[0, 0].max() == 0
    (tmp_path / "wide.png").write_bytes(to_png(grid[:6]))
    with pytest.raises(ValueError, match="8×6 pixels are not a 2×2 grid"):
        read_picture_file(PictureFile(tmp_path / "wide.png", (0, 0)))


@pytest.mark.parametrize(
    ("asked", "note"),
    [
        ((553, 553, 4, GenEval.official_sha256[0]), None),
        ((553, 553, 4, "ab" * 32), "is not the official one"),
        ((412, 412, 4, GenEval.official_sha256[0]), "has 412 prompts, geneval has 553"),
        ((553, 12, 4, GenEval.official_sha256[0]), "only 12 of 553 prompts"),
        ((553, 553, 1, GenEval.official_sha256[0]), "1 pictures per prompt, officially 4"),
    ],
)
def test_what_differs_from_the_official_protocol_is_noted(asked, note):
    notes = prompt_notes(GenEval(), *asked)
    assert notes == [] if note is None else len(notes) == 1 and note in notes[0]


def test_a_file_that_is_known_by_its_git_hash_alone_is_official(tmp_path):
    class Known(GenEval):
        official_sha256 = ("git:b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",)  # of printf hello | git hash-object --stdin

    (tmp_path / "a.txt").write_text("hello")
    hashes = sha256_of(tmp_path / "a.txt"), git_hash_of(tmp_path / "a.txt")
    assert prompt_notes(Known(), 553, 553, 4, *hashes) == []
    assert "is not the official one" in prompt_notes(Known(), 553, 553, 4, hashes[0], "git:1")[0]
    assert git_hash_of(tmp_path) == ""


def test_a_summary_is_json_with_label_interval_and_counts(tmp_path):
    benchmark, rows = score(layout(tmp_path, [(1, 0), (1, 255), (0, 0), (1, 0)]))
    summary = summary_of(report_on(benchmark, rows), {"prompts_sha256": "ab"})
    assert (summary["score"], summary["pictures"], summary["prompts"], summary["no_verdict"]) == (3 / 7, 7, 4, 1)
    assert summary["label"] == "geneval[pixel:pixel-detector]" and summary["low"] <= 3 / 7 <= summary["high"]
    json.dumps(summary, allow_nan=False)
