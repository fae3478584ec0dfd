"""GenEval over any detector: what is asked of the models, the verdict from what they saw, and the official aggregation."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from tests.benchmarks.helpers import PixelDetector, geneval_prompt, picture, pictures_of

from thinkdraw.benchmarks import BENCHMARKS, load_benchmark
from thinkdraw.benchmarks.geneval.benchmark import GenEval, aggregate, raw_detection, read_detection
from thinkdraw.benchmarks.geneval.verdict import objects_to_color, select_detections, verdict_on
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.lab.scenes import draw, random_scene
from thinkdraw.rewards.lab_detector import judge as lab_judge
from thinkdraw.types import Detection

FAR = 1000.0


def see(name, x=0.0, score=0.95, **attributes):
    return Detection(name, (x, 0.0, x + 10, 10.0), score, attributes)


def record(tag, *include, exclude=()):
    return {"tag": tag, "include": list(include), "exclude": list(exclude), "prompt": ""}


def want(name, count=1, **more):
    return {"class": name, "count": count, **more}


def row(tag, prompt, sample, verdict):
    return {"prompt_index": prompt, "prompt_id": f"{prompt:05d}", "tag": tag, "sample": sample, "verdict": verdict}


@pytest.mark.parametrize(
    ("found", "colors", "metadata", "reason"),
    [
        ([see("dog")], {}, record("single_object", want("dog")), ""),
        ([see("dog", score=0.3)], {}, record("single_object", want("dog")), "expected dog>=1, found 0"),
        ([see("dog", score=0.5)], {}, record("counting", want("dog")), "expected dog>=1, found 0"),
        # two classes may share one box, and one object is enough
        ([see("dog"), see("cat"), see("dog", FAR)], {}, record("two_object", want("dog"), want("cat")), ""),
        # counting is exact only because of `exclude`
        ([see("dog", FAR * i) for i in range(3)], {}, record("counting", want("dog", 2)), ""),
        (
            [see("dog", FAR * i) for i in range(3)], {},
            record("counting", want("dog", 2), exclude=[want("dog", 3)]), "expected dog<3, found 3",
        ),
        # the most confident object alone is looked at for colour
        (
            [see("dog", score=0.5), see("dog", score=0.9)], {"dog": ["blue"]},
            record("colors", want("dog", color="red")), "expected red dog>=1, found 0 red; and 1 blue",
        ),
        # ... and for position: the best cat stands right of the dog, the other one left of it
        (
            [see("dog", 500), see("cat", FAR, 0.9), see("cat", 0, 0.8)], {},
            record("position", want("dog"), want("cat", position=["left of", 0])),
            "expected cat left of target, found right of target",
        ),
        (
            [see("cat", FAR)], {}, record("position", want("dog"), want("cat", position=["left of", 0])),
            "expected dog>=1, found 0\nno target for cat to be left of",
        ),
    ],
)  # fmt: skip
def test_verdicts_from_detections_and_colours(found, colors, metadata, reason):
    verdict = verdict_on(metadata, found, colors)
    assert (verdict.correct, verdict.reason) == (reason == "", reason)


def test_only_objects_that_decide_are_sent_to_the_colour_judge():
    metadata = record("color_attr", want("dog", color="red"), want("cat", 2, color="blue"), want("cow", color="red"))
    found = [see("dog", 0, 0.5), see("dog", 1, 0.9), see("cat"), see("cat", 9), see("cat", 5, 0.4)]
    asked = objects_to_color(metadata, select_detections(metadata, found))
    # one dog, the best; two cats, of equal scores the later first; no cow, for there is none
    assert {name: [d.box[0] for d in objects] for name, objects in asked.items()} == {"dog": [1.0], "cat": [9.0, 0.0]}


def test_a_lab_detection_stands_under_every_class_that_its_attributes_fit():
    ring = see("ring", size="small", texture="striped")
    metadata = record("two_object", want("small striped ring"), want("ring"), want("striped ring"))
    assert verdict_on(metadata, [ring], {}).correct
    assert not verdict_on(record("two_object", want("large ring")), [ring], {}).correct


def test_a_rows_detections_give_the_same_verdict_again():
    found = [see("dog", score=float(np.float32(0.31)), color="red"), see("cat", FAR)]
    assert [read_detection(raw_detection(d)) for d in found] == found


class Colors:
    """Calls everything blue; for class "ghost" it has no verdict."""

    name, path = "clip-colour", "openai/clip-vit-large-patch14"

    def color_of(self, picture):
        from thinkdraw.judges.detectors.colour import NoVerdict

        def name(label, objects):
            if label == "ghost":
                raise NoVerdict("not finite")
            return ["blue"] * len(objects)

        return name


class Colourless(PixelDetector):
    def detect(self, pictures, labels=None):
        found = super().detect(pictures, labels)
        return [None if seen is None else [replace(d, attributes={}) for d in seen] for seen in found]


def test_rows_keep_what_the_models_saw():
    (row,) = GenEval(Colourless(), Colors()).judge([pictures_of(geneval_prompt("dog", color="blue"), 2)])
    assert (row["verdict"], row["reason"], row["colors"]) == (1.0, "", {"dog": ["blue"]})
    assert row["detections"][1] == {"label": "dog", "box": [10, 0, 15, 5], "score": 0.95}
    assert row["details"] == {"dog": [[10, 0, 15, 5, 0.95], [0, 0, 5, 5, 0.95]]}  # of equal scores the later leads
    assert row["metadata"]["include"] == [{"class": "dog", "count": 1, "color": "blue"}]


def test_no_verdict_of_detector_or_colour_judge_is_none_with_its_name():
    prompt = geneval_prompt("ghost", color="blue")
    benchmark = GenEval(Colourless("ghost"), Colors())
    broken, colorless = benchmark.judge([pictures_of(prompt, 255, 1)])
    assert (broken["verdict"], broken["reason"]) == (None, "pixel:pixel-detector gave no verdict")
    assert (colorless["verdict"], colorless["reason"]) == (None, "clip-colour:clip-vit-large-patch14 gave no verdict")


def test_a_colour_clause_needs_a_colour_judge_where_the_detector_names_none():
    with pytest.raises(UserError, match=r"judges\.colors=NAME"):
        GenEval(Colourless()).judge([pictures_of(geneval_prompt(color="red"), 1)])


def test_a_class_that_the_detector_calls_otherwise_is_an_error_and_not_a_bad_picture():
    detector = PixelDetector()
    detector.names = ("dog", "tvmonitor")
    with pytest.raises(UserError, match=r"no class 'tv'.*object_names"):
        GenEval(detector).judge([pictures_of(geneval_prompt("tv"), 1)])


def test_pictures_of_several_sizes_are_judged_in_their_own_order():
    prompt = geneval_prompt()
    sets = [pictures_of(prompt, 1, 0, size=8), pictures_of(geneval_prompt(index=1), 0, 1, index=1, size=6)]
    mixed = replace(sets[0], pictures=(picture(1, 8), picture(0, 6)))
    rows = GenEval(PixelDetector(), batch=2).judge([mixed, sets[1]])
    assert [(r["prompt_index"], r["sample"], r["verdict"]) for r in rows] == [
        (0, 0, 1.0), (0, 1, 0.0), (1, 0, 0.0), (1, 1, 1.0),
    ]  # fmt: skip


def test_a_label_names_every_judge_that_is_not_the_official_one():
    class HfMask2Former(PixelDetector):
        name, path = "hf-mask2former", "facebook/mask2former-swin-small-coco-instance"

    other = Colors()
    other.path = "openai/clip-vit-base-patch32"
    assert GenEval(HfMask2Former(), Colors()).label == "geneval[hf-mask2former]"
    assert GenEval(HfMask2Former(), other).label == "geneval[hf-mask2former+clip-colour:clip-vit-base-patch32]"
    assert GenEval(PixelDetector()).label == "geneval[pixel:pixel-detector]"
    assert load_benchmark("geneval").name == "geneval" and "geneval" in BENCHMARKS


def test_the_lab_through_genevals_class_has_the_labs_own_verdicts():
    from thinkdraw.judges.lab import LabDetector

    rng = np.random.default_rng(0)
    benchmark, num_correct = GenEval(LabDetector()), 0
    for i, example in enumerate(prompt_set("geneval", "test", 48)):
        scene = example.scene(rng) if i % 2 else random_scene(3, rng)
        (row,) = benchmark.judge([replace(pictures_of(example.prompt, 0), pictures=(draw(scene),))])
        wanted = lab_judge(draw(scene), example.prompt)
        assert (row["verdict"], row["reason"]) == (float(wanted.correct), wanted.reason)
        num_correct += wanted.correct
    assert 24 <= num_correct < 48


def test_overall_is_the_mean_of_tag_scores_and_shares_are_over_pictures_and_prompts():
    rows = [row("counting", 0, k, float(k == 0)) for k in range(4)]  # 1/4, solved
    rows += [row("colors", 1, k, 1.0) for k in range(4)]  # 4/4, solved
    rows += [row("colors", 2, k, 0.0) for k in range(4)]  # 0/4, not solved
    report = aggregate(rows, "geneval")
    assert report.columns["counting"].value == 1 / 4 and report.columns["colors"].value == 4 / 8
    assert report.overall.value == (1 / 4 + 1 / 2) / 2
    assert report.extra == {"correct_pictures_frac": 5 / 12, "solved_prompts_frac": 2 / 3}
    assert (report.overall.pictures, report.overall.prompts) == (12, 3)


def test_tags_come_in_the_official_order_and_missing_ones_are_named():
    report = aggregate([row("lab", 0, 0, 1.0), row("colors", 1, 0, 1.0), row("counting", 2, 0, 1.0)], "geneval")
    assert list(report.columns) == ["counting", "colors", "lab"]
    assert report.notes == [
        "no pictures of single_object, two_object, position, color_attr: the overall is not GenEval's"
    ]


def test_the_order_of_rows_changes_nothing():
    rng = np.random.default_rng(0)
    rows = [row("colors", i % 17, i // 17, float(rng.random() < 0.5)) for i in range(80)]
    assert aggregate(rows, "") == aggregate(rows[::-1], "")


def test_a_picture_without_verdict_is_counted_and_never_wrong():
    report = aggregate([row("colors", 0, 0, 1.0), row("colors", 0, 1, None), row("colors", 1, 0, None)], "")
    assert (report.overall.value, report.overall.num_no_verdict) == (1, 2)
    assert report.extra == {"correct_pictures_frac": 1, "solved_prompts_frac": 1}


def test_no_rows_are_an_error():
    with pytest.raises(ValueError, match="at least one prompt"):
        aggregate([], "")


def test_the_official_prompts_have_the_official_counts_palette_and_relations(shared_dir):
    from thinkdraw.benchmarks.settings import sha256_of
    from thinkdraw.rewards.rules import COLORS, RELATIONS
    from thinkdraw.studies.evaluate_open import prompt_path

    path = prompt_path(GenEval, shared_dir / "benchmarks")
    prompts = GenEval().prompts(path)
    assert sha256_of(path) in GenEval.official_sha256 and len(prompts) == GenEval.num_prompts
    assert Counter(p.tag for p in prompts) == {
        "single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 100, "color_attr": 100,
    }  # fmt: skip
    assert [p.text for p in prompts] == (path.parent / "generation_prompts.txt").read_text().splitlines()
    clauses = [clause for p in prompts for clause in p.include]
    assert {clause["color"] for clause in clauses if "color" in clause} <= set(COLORS)
    assert {clause["position"][0] for clause in clauses if "position" in clause} == set(RELATIONS)
