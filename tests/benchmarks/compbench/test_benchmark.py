"""T2I-CompBench++ as a benchmark, on made-up prompts in the official files."""

import json

import numpy as np
import pytest
from tests.benchmarks.compbench.stand_ins import NO_VERDICT, Finds, Says, Scores, Slopes, parse

from thinkdraw.benchmarks.base import PictureSet
from thinkdraw.benchmarks.compbench.asker import CATEGORIES
from thinkdraw.benchmarks.compbench.benchmark import CompBench, open_asker
from thinkdraw.benchmarks.compbench.files import RESULTS, read_answers, read_results
from thinkdraw.benchmarks.flow import report_on, score_pictures
from thinkdraw.benchmarks.picture_files import list_pictures, read_picture_file
from thinkdraw.benchmarks.settings import sha256_of_prompts
from thinkdraw.data.structure.noun_chunks import write_parses
from thinkdraw.errors import UserError

FILES = {
    "color": ["a red dog and a green cat", "a green dog"],
    "shape": ["a big dog", "a big cat"],
    "texture": ["a red dog", "a red cat"],
    "spatial": ["a dog on the left of a cat", "a cat next to a dog"],
    "3d_spatial": ["a dog behind a cat", "a cat hidden by a dog"],
    "numeracy": ["two dogs and a cat", "three cats"],
    "non_spatial": ["A dog is looking at a cat.", "A cat is looking at a dog."],
    "complex": ["The red dog next to a green cat.", "The big cat and the red dog."],
}


@pytest.fixture
def folder(tmp_path):
    """Prompt files as upstream has them (CRLF in most), the lists beside them, and a file of noun chunks."""
    path = tmp_path / "dataset"
    path.mkdir()
    for category, prompts in FILES.items():
        (path / f"{category}_val.txt").write_bytes("\r\n".join(prompts).encode())
    (path / "complex_val_spatial.txt").write_bytes(b"The red dog next to a green cat.\r\n")
    (path / "complex_val_action.txt").write_bytes(b"The big cat and the red dog.\r\n")
    (path / "new_objects.txt").write_text("dog - dogs\ncat - cats\n")
    write_parses(tmp_path / "chunks.jsonl", [p for prompts in FILES.values() for p in prompts], parse)
    return path


def bench(folder, **settings):
    chunks = folder.parent / "chunks.jsonl"
    return CompBench(Says(), Finds(), Slopes(), Scores(), **{"chunks": chunks, **settings})


def drawn(index, prompt, firsts, side=32):
    pictures = tuple(np.full((side, side, 3), first, dtype=np.uint8) for first in firsts)
    return PictureSet(index, prompt, tuple(range(len(firsts))), pictures)


def export(path, out, count=10):
    """The benchmark on a folder of prompts, or on one category's file, and its prompts, `count` pictures of each drawn."""
    made = bench(path if path.is_dir() else path.parent)
    prompts = made.prompts(path)
    made.export_official(out, prompts, (drawn(i, p, [50] * count) for i, p in enumerate(prompts)))
    return made, prompts


def test_prompts_are_the_eight_categories_in_their_order_with_unique_ids(folder):
    prompts = bench(folder).prompts(folder)
    assert [p.tag for p in prompts] == [category for category in FILES for _ in range(2)]
    assert len({p.id for p in prompts}) == 16
    assert [p.tag for p in bench(folder).prompts(folder / "color_val.txt")] == ["color"] * 2


@pytest.mark.parametrize(
    ("line", "words"), [("a dog_cat", "file name cannot hold"), ("a/b", "cannot hold"), ("a green dog", "twice")]
)
def test_prompts_that_file_names_could_not_tell_apart_are_refused(folder, line, words):
    with (folder / "color_val.txt").open("a") as file:
        file.write(f"\n{line}")
    with pytest.raises(UserError, match=words):
        bench(folder).prompts(folder)


def test_the_label_names_every_judge_that_is_given():
    assert CompBench(Says(), Finds(), Slopes(), Scores()).label == "compbench[says+finds+slopes+scores]"
    assert CompBench(scorer=Scores()).label == "compbench[scores]"


def test_all_categories_go_from_layout_to_report(folder, tmp_path):
    made, prompts = export(folder, tmp_path / "out", count=2)
    inventory = list_pictures(tmp_path / "out", made.official_pictures(tmp_path / "out", prompts, 10), range(16), 2)
    assert not inventory.missing and not inventory.extra
    rows = score_pictures(made, dict(enumerate(prompts)), inventory, tmp_path / "rows", samples=2)
    report = report_on(made, rows)
    # each P(yes) is 0.5: color 0.25 and 0.5; spatial as 0.4 + ½ · 0.3 and 0.4 + ½ (near); both numeracy prompts see too few
    values = {name: score.value for name, score in report.columns.items()}
    assert values["color"] == pytest.approx(0.375) and values["shape"] == values["texture"] == 0.5
    assert values["spatial"] == pytest.approx((0.55 + 0.9) / 2)
    assert values["3d_spatial"] == pytest.approx(0.4)
    assert values["numeracy"] == pytest.approx((0.75 + 0.5) / 2)
    assert values["non_spatial"] == 0.5
    # (0.25 + 0.9) / 2 as spatial; (0.5 · 0.5 + 0.5) / 2 as action
    assert values["complex"] == pytest.approx((0.575 + 0.375) / 2)
    assert report.overall.value == pytest.approx(np.mean(list(values.values())))
    assert "does not report" in report.notes[0]
    assert json.loads(json.dumps(rows))[0]["p_yes"] == {"a red dog?": 0.5, "a green cat?": 0.5}


def test_pictures_are_numbered_over_their_category_ten_for_each_prompt(folder, tmp_path):
    made, prompts = export(folder / "non_spatial_val.txt", tmp_path)
    names = sorted(path.name for path in (tmp_path / "non_spatial" / "samples").iterdir())
    assert names[0] == "A cat is looking at a dog._000010.png" and names[10] == "A dog is looking at a cat._000000.png"
    places = made.official_pictures(tmp_path, prompts, 10).files
    assert len(places) == 20
    assert places[1, 3].path.name == "A cat is looking at a dog._000013.png"
    assert read_picture_file(places[1, 3]).pixels.shape == (32, 32, 3)


def test_each_category_counts_anew(folder, tmp_path):
    made, prompts = export(folder, tmp_path, count=1)
    places = made.official_pictures(tmp_path, prompts, 10).files
    assert len(places) == 16
    assert places[13, 0].path.name == "A cat is looking at a dog._000001.png"  # second of its category, 14th of all


def test_a_missing_picture_is_known_by_its_number(folder, tmp_path):
    made, prompts = export(folder / "color_val.txt", tmp_path)
    (tmp_path / "color" / "samples" / "a green dog_000014.png").unlink()
    places = made.official_pictures(tmp_path, prompts, 10).files
    assert [key for key in ((1, k) for k in range(10)) if key not in places] == [(1, 4)]


def test_folders_with_another_number_of_pictures_per_prompt_are_read(folder, tmp_path):
    made, prompts = export(folder / "color_val.txt", tmp_path, count=3)
    places = made.official_pictures(tmp_path, prompts, 10).files
    assert sorted(places) == [(i, k) for i in (0, 1) for k in range(3)]
    assert places[1, 2].path.name == "a green dog_000005.png"


def test_numbers_that_start_anew_for_each_prompt_are_taken_in_their_order(folder, tmp_path):
    made, prompts = export(folder / "color_val.txt", tmp_path, count=3)
    samples = tmp_path / "color" / "samples"
    for k in range(3):
        (samples / f"a green dog_{3 + k:06d}.png").rename(samples / f"a green dog_{k:06d}.png")
    places = made.official_pictures(tmp_path, prompts, 10).files
    assert [places[1, k].path.name for k in (0, 2)] == ["a green dog_000000.png", "a green dog_000002.png"]


def test_a_folder_of_one_category_may_hold_the_samples_itself(folder, tmp_path):
    made, prompts = export(folder / "color_val.txt", tmp_path, count=1)
    assert (
        len(made.official_pictures(tmp_path / "color", prompts, 10).files)
        == len(made.official_pictures(tmp_path, prompts, 10).files)
        == 2
    )


def test_files_that_do_not_belong_are_extra(folder, tmp_path):
    made, prompts = export(folder, tmp_path / "out", count=1)
    samples = tmp_path / "out" / "color" / "samples"
    for name in ("a blue cow_000007.png", "a green dog.png", "a green dog_x.png"):
        (samples / name).write_bytes(b"")
    inventory = list_pictures(tmp_path / "out", made.official_pictures(tmp_path / "out", prompts, 10), range(16), 1)
    assert len(inventory.extra) == 3 and not inventory.missing


def test_sets_of_different_numbers_and_folders_with_other_files_are_refused(folder, tmp_path):
    made = bench(folder)
    prompts = made.prompts(folder)
    uneven = [drawn(0, prompts[0], [1] * 10), drawn(1, prompts[1], [1] * 9)]
    with pytest.raises(UserError, match="Draw the missing ones"):
        made.export_official(tmp_path / "out", prompts, uneven)
    with pytest.raises(UserError, match=r"already holds .* other files"):
        made.export_official(tmp_path / "out", prompts, [drawn(0, prompts[0], [1] * 4)])


def test_a_picture_that_cannot_be_read_and_a_judge_without_verdict_are_named(folder, tmp_path):
    made, prompts = export(folder, tmp_path / "out", count=2)
    samples = tmp_path / "out" / "color" / "samples"
    (samples / "a green dog_000003.png").write_bytes(b"no picture")
    silent = drawn(0, prompts[0], [50, NO_VERDICT])
    rows = made.judge([silent])
    assert rows[0]["verdict"] == 0.25 and rows[1]["verdict"] is None and "questioner" in rows[1]["reason"]
    only = {i: prompts[i] for i in (0, 1)}
    inventory = list_pictures(tmp_path / "out", made.official_pictures(tmp_path / "out", prompts, 10), range(2), 2)
    rows = score_pictures(made, only, inventory, None, samples=2, max_no_verdict_frac=0.5)
    report = report_on(made, rows)
    assert report.overall.num_no_verdict == 1 and "cannot be read" in report.notes[-1]


def test_what_no_category_needs_is_not_opened(folder, tmp_path):
    made = CompBench(scorer=Scores(), chunks=tmp_path / "absent.jsonl")
    prompts = made.prompts(folder / "non_spatial_val.txt")
    assert made.judge([drawn(0, prompts[0], [30])])[0]["verdict"] == pytest.approx(0.3)
    prompts = made.prompts(folder / "color_val.txt")
    with pytest.raises(UserError, match=r"absent\.jsonl"):
        made.judge([drawn(0, prompts[0], [30])])


def test_official_results_are_read_by_category_and_number(folder, tmp_path):
    made = bench(folder)
    prompts = made.prompts(folder)
    answers = {"color": [{"question_id": i, "answer": f"{i / 100:.4f}"} for i in range(20)]}
    answers["3d_spatial"] = [{"question_id": 19 - i, "answer": (19 - i) / 100} for i in range(20)]  # in any order
    for category, found in answers.items():
        target = tmp_path / "official" / category / RESULTS[category][0] / "vqa_result.json"
        target.parent.mkdir(parents=True)
        target.write_text(json.dumps(found))
    rows = made.import_official(tmp_path / "official", prompts)
    assert [(r["tag"], r["prompt_index"], r["sample"], r["verdict"]) for r in rows[9:11]] == [
        ("color", 0, 9, 0.09), ("color", 1, 0, 0.10),
    ]  # fmt: skip
    assert rows[-1] == {
        "prompt_index": 9, "prompt_id": prompts[9].id, "prompt": "a cat hidden by a dog", "tag": "3d_spatial", "sample": 9,
        "verdict": 0.19,
    }  # fmt: skip
    one = made.import_official(tmp_path / "official" / "color" / "annotation_blip" / "vqa_result.json", prompts)
    assert one == rows[:20]
    assert made.aggregate(rows).columns["color"].value == pytest.approx(np.mean(np.arange(20) / 100))


def test_what_we_write_is_read_back_and_says_who_judged(folder, tmp_path):
    made = bench(folder)
    prompts = made.prompts(folder)
    rows = made.judge([drawn(i, p, [50, NO_VERDICT if i == 2 else 60]) for i, p in enumerate(prompts)])
    made.write_results(tmp_path / "results", rows)
    files = [tmp_path / "results" / category / RESULTS[category][0] / "vqa_result.json" for category in FILES]
    assert [path.relative_to(tmp_path / "results").as_posix() for path in files if path.is_file()] == [
        "color/annotation_blip/vqa_result.json",
        "shape/annotation_blip/vqa_result.json",
        "texture/annotation_blip/vqa_result.json",
        "spatial/labels/annotation_obj_detection_2d/vqa_result.json",
        "3d_spatial/labels/annotation_obj_detection_3d/vqa_result.json",
        "numeracy/annotation_num/vqa_result.json",
        "non_spatial/annotation_clip/vqa_result.json",
        "complex/annotation_3_in_1/vqa_result.json",
    ]
    assert json.loads(files[0].read_text())[0] == {"question_id": 0, "answer": "0.2500", "label": made.label}
    assert json.loads(files[1].read_text())[1]["answer"] is None
    assert isinstance(json.loads(files[6].read_text())[0]["answer"], float)
    assert (files[5].parent / "score.txt").read_text() == "total:2.5 num:4 avg:0.625"
    assert (files[0].parent / "blip_vqa_score.txt").read_text() == "BLIP-VQA score:0.4275"  # (.25 + .36 + .5 + .6) / 4
    read = made.import_official(tmp_path / "results", prompts)
    assert [(r["prompt_index"], r["sample"], r["verdict"]) for r in read] == [
        (r["prompt_index"], r["sample"], r["verdict"]) for r in rows
    ]
    assert {row["label"] for row in read} == {made.label}


@pytest.mark.parametrize(
    ("place", "found", "words"),
    [
        ("color/annotation_blip", [{"question_id": 0, "answer": 1}] * 2, "2 rows about 1 pictures"),
        (
            "color/annotation_blip",
            [{"question_id": i, "answer": 1} for i in range(3)],
            "3 answers to 2 prompts of color",
        ),
        ("color/annotation_blip", [{"question_id": i + 1, "answer": 1} for i in range(2)], "numbered from 0"),
        ("color/annotation_blip", [{"question_id": 0}], "KeyError"),
        ("color/annotation_blip", [], "0 rows"),
        ("complex/annotation_blip", [{"question_id": i, "answer": 1} for i in range(2)], "part of a score"),
        ("annotation_blip", [{"question_id": i, "answer": 1} for i in range(2)], "folders do not say"),
    ],
)
def test_results_that_cannot_be_placed_are_refused(folder, tmp_path, place, found, words):
    path = tmp_path / "official" / place / "vqa_result.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match=words):
        read_results(path, bench(folder).prompts(folder))


def test_results_need_the_prompts_and_a_folder_needs_results(folder, tmp_path):
    with pytest.raises(UserError, match="names no prompts"):
        bench(folder).import_official(tmp_path, None)
    with pytest.raises(UserError, match="holds no results"):
        bench(folder).import_official(tmp_path, bench(folder).prompts(folder))


def test_an_official_file_has_no_label(tmp_path):
    (tmp_path / "vqa_result.json").write_text('[{"question_id": 0, "answer": "0.5000"}]')
    assert read_answers(tmp_path / "vqa_result.json") == ({0: 0.5}, None)


def test_the_official_lists_are_found_beside_the_official_prompts(shared_dir):
    folder = shared_dir / "benchmarks" / "t2i_compbench"
    prompts = CompBench().prompts(folder)
    asker = open_asker(folder)
    assert len(prompts) == CompBench.num_prompts and len(asker.objects) == 101
    complex_ = [p.text.split(".")[0].lower() for p in prompts if p.tag == "complex"]
    assert (
        sum(text in asker.spatial for text in complex_) == 58 and sum(text in asker.action for text in complex_) == 212
    )


def test_the_official_prompts_are_known_by_their_hash_as_a_whole_and_by_category(shared_dir):
    folder = shared_dir / "benchmarks" / "t2i_compbench"
    paths = [folder, *(folder / f"{category}_val.txt" for category in CATEGORIES)]
    found = [sha256_of_prompts(CompBench().prompts(path), path) for path in paths]
    assert found == list(CompBench.official_sha256)
