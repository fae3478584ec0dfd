"""Which judge each category of T2I-CompBench++ asks, and that no verdict stays one."""

import math

import pytest
import torch
from tests.benchmarks.compbench.stand_ins import NO_VERDICT, Finds, Says, Scores, Slopes, parse, picture

from thinkdraw.benchmarks.compbench.asker import CATEGORIES, WordAsker
from thinkdraw.benchmarks.compbench.judge import CompBenchJudge
from thinkdraw.data.structure.noun_chunks import Parse
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt

OBJECTS = [("dog", "dogs"), ("cat", "cats")]
PROMPTS = {
    "color": "a red dog and a green cat",
    "shape": "a big dog",
    "texture": "a red dog",
    "spatial": "a dog on the left of a cat",
    "3d_spatial": "a dog behind a cat",
    "numeracy": "two dogs and a cat",
    "non_spatial": "a dog is looking at a cat",
    "complex": "The red dog next to a green cat.",
}


def asker(**settings):
    return WordAsker(parse, OBJECTS, **{"spatial": {"the red dog next to a green cat"}, "action": set(), **settings})


def judge(**settings):
    return CompBenchJudge(asker(**settings), Says(), Finds(), Slopes(), Scores())


def of(category):
    return Prompt(PROMPTS[category], category, category)


def test_the_eight_categories_have_the_names_of_their_files():
    assert tuple(PROMPTS) == CATEGORIES


@pytest.mark.parametrize(
    ("category", "score"),
    [
        ("color", 0.25),  # two chunks, each 0.5
        ("shape", 0.5),
        ("texture", 0.5),
        # both found with 0.8 at x = 0..16 and 8..24 of 32 pixels, IoU 1/3: 0.2 + 0.2 + ½ · 0.1 / (1/3)
        ("spatial", 0.4 + 0.5 * 0.3),
        # the map is looked up mirrored, so the thing further left is nearer: the dog, which is not behind
        ("3d_spatial", 0.4),
        ("numeracy", 0.75),  # one dog of two, and the cat: ½ · ½ + ½
        ("non_spatial", 0.5),
        ("complex", (0.25 + 0.9) / 2),  # attributes 0.5 · 0.5; relation 0.2 + 0.2 + ½ (near)
    ],
)
def test_a_category_asks_its_judges_and_scores_by_its_rules(category, score):
    verdict = judge()(picture(50)[None], [of(category)])[0]
    assert verdict.score == pytest.approx(score) and verdict.reason == ""


def test_a_picture_further_behind_scores_on_its_overlap():
    # cat first: asked for as (cat, dog), the cat lies left, nearer; the dog lies behind. IoU 1/3 -> (1/3) / ½ = 2/3
    front = Prompt("a cat in front of a dog", "", "3d_spatial")
    tokens = (("cat", "NOUN"), ("in", "X"), ("front", "X"), ("of", "X"), ("dog", "NOUN"))
    asked = CompBenchJudge(WordAsker(lambda text: Parse((), tokens)), detector=Finds(), depth=Slopes())
    verdict = asked(picture(50)[None], [front])[0]
    assert verdict.score == pytest.approx(0.4 + 0.5 * 2 / 3, abs=1e-6)


def test_all_categories_in_one_batch_score_as_they_do_alone():
    batch = judge()(torch.stack([picture(50)] * 8), [of(category) for category in CATEGORIES])
    alone = [judge()(picture(50)[None], [of(category)])[0] for category in CATEGORIES]
    assert [verdict.score for verdict in batch] == [verdict.score for verdict in alone]


def test_judges_are_asked_only_what_the_category_needs():
    asked = judge()
    asked(torch.stack([picture(50)] * 3), [of("color"), of("numeracy"), of("non_spatial")])
    assert asked.questioner.asked == ["a red dog?", "a green cat?"]
    assert asked.detector.asked == [["dog", "cat"]]
    assert asked.scorer.texts == ["a dog is looking at a cat"]


def test_persons_and_renamed_things_are_looked_for_under_the_detectors_names():
    objects = [("ship", "ships"), ("man", "men")]
    asked = CompBenchJudge(WordAsker(parse, objects), detector=Finds())
    asked(picture(50)[None], [Prompt("two ships and a man", "", "numeracy")])
    assert asked.detector.asked == [["boat", "person"]]


def test_a_complex_prompt_of_action_needs_no_detector_and_its_text_loses_adjectives():
    scorer = Scores()
    asked = CompBenchJudge(asker(spatial=set(), action={"the red dog next to a green cat"}), Says(), scorer=scorer)
    verdict = asked(picture(50)[None], [of("complex")])[0]
    assert scorer.texts == ["the dog next to a cat ."]
    assert verdict.score == pytest.approx((0.25 + 0.5) / 2)
    assert verdict.parts == {"attribute": 0.25, "action": 0.5}


def test_a_complex_prompt_of_neither_list_is_scored_on_all_three():
    verdict = judge(spatial=set())(picture(50)[None], [of("complex")])[0]
    assert verdict.score == pytest.approx((0.25 + 0.9 + 0.5) / 3)


def test_a_complex_prompt_whose_things_are_not_told_has_relation_0_as_upstream():
    asked = judge(spatial={"the red dog"})
    verdict = asked(picture(50)[None], [Prompt("The red dog.", "", "complex")])[0]
    assert verdict.parts == {"attribute": 0.5, "spatial": 0.0} and verdict.score == 0.25
    assert asked.detector.asked == []


@pytest.mark.parametrize(
    ("category", "reason"),
    [
        ("color", "questioner"),
        ("spatial", "detector"),
        ("3d_spatial", "detector"),
        ("numeracy", "detector"),
        ("non_spatial", "scorer"),
        ("complex", "attribute, spatial"),
    ],
)
def test_a_judge_without_verdict_is_named_and_never_0(category, reason):
    pictures = torch.stack([picture(NO_VERDICT), picture(50)])
    failed, fine = judge()(pictures, [of(category)] * 2)
    assert math.isnan(failed.score) and reason in failed.reason
    assert not math.isnan(fine.score) and fine.reason == ""


def test_a_depth_judge_without_verdict_is_named():
    class Fails:
        def depth(self, pictures):
            return torch.full(pictures.shape[:3], math.nan)

    verdict = CompBenchJudge(asker(), detector=Finds(), depth=Fails())(picture(50)[None], [of("3d_spatial")])[0]
    assert math.isnan(verdict.score) and "depth" in verdict.reason


@pytest.mark.parametrize(("category", "text"), [("spatial", "red"), ("3d_spatial", "red"), ("numeracy", "two red")])
def test_a_prompt_whose_words_name_nothing_has_no_verdict(category, text):
    verdict = judge()(picture(50)[None], [Prompt(text, "", category)])[0]
    assert math.isnan(verdict.score) and "nothing to look for" in verdict.reason


def test_what_the_judges_said_is_kept():
    colors = judge()(picture(50)[None], [of("color")])[0].raw
    assert colors["p_yes"] == {"a red dog?": 0.5, "a green cat?": 0.5}
    places = judge()(picture(50)[None], [of("3d_spatial")])[0].raw
    assert places["relation"] == "behind" and places["things"] == ("dog", "cat")
    assert [d["label"] for d in places["detections"]] == ["dog", "cat"]
    assert places["detections"][0]["depth"] > places["detections"][1]["depth"]


@pytest.mark.parametrize(
    ("prompt", "built", "words"),
    [
        (Prompt("a dog", "", "geneval"), {}, "none of color"),
        (Prompt("a dog", "", "color"), {"parse": None}, "noun chunks"),
        (Prompt("a dog", "", "spatial"), {"parse": lambda text: Parse(("a dog",))}, "tokens"),
        (Prompt("two dogs", "", "numeracy"), {"objects": ()}, "new_objects.txt"),
        (Prompt("a dog", "", "complex"), {"spatial": None}, "complex_val_spatial.txt"),
    ],
)
def test_what_a_category_needs_and_is_not_there_is_said(prompt, built, words):
    built = WordAsker(**{"parse": parse, "objects": OBJECTS, "spatial": set(), "action": set(), **built})
    with pytest.raises(UserError, match=words):
        CompBenchJudge(built, Says(), Finds(), Slopes(), Scores())(picture(50)[None], [prompt])


@pytest.mark.parametrize(
    ("category", "role"),
    [("color", "questioner"), ("spatial", "detector"), ("non_spatial", "scorer")],
)
def test_a_judge_that_a_category_needs_must_be_given(category, role):
    with pytest.raises(UserError, match=role):
        CompBenchJudge(asker())(picture(50)[None], [of(category)])
