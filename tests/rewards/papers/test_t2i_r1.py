import math

import pytest
import torch
from tests.benchmarks.stub import rollouts
from tests.rewards.judges import Boxes, Brightness, Questions

from thinkdraw.errors import UserError
from thinkdraw.rewards import load_reward
from thinkdraw.rewards.papers.t2i_r1 import AttributesReward, GroundingReward, task_of
from thinkdraw.rewards.vqa_yes import ORM_QUESTION
from thinkdraw.types import Prompt, Relation

NAN = math.nan
LEFT, RIGHT, TOP = (0, 4, 4, 8), (12, 4, 16, 8), (6, 0, 10, 4)
SPATIAL = Prompt("a dog left of a cat", tag="spatial", nouns=("dog", "cat"), relation=Relation("dog", "left of", "cat"))
ABOVE = Prompt("a dog above a cat", tag="spatial", nouns=("dog", "cat"), relation=Relation("dog", "above", "cat"))
NUMERACY = Prompt("two dogs and one cup", tag="numeracy", nouns=("dog", "cup"), counts=(("dog", 2), ("cup", 1)))
COLOR = Prompt("a red dog and a cat", tag="color", nouns=("dog", "cat"), attributed=("red dog",))
OBJECT = Prompt("a dog and a cat", tag="object", nouns=("dog", "cat"))
EMPTY = Prompt("joy", tag="non")


def batch(prompts):
    firsts = torch.arange(len(prompts), dtype=torch.uint8) * 10
    return rollouts(prompts, firsts[:, None, None, None].expand(-1, 16, 16, 3).contiguous(), [""] * len(prompts))


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        (SPATIAL, "spatial"), (NUMERACY, "numeracy"), (COLOR, "object"), (EMPTY, "object"),
        # its complex prompts have a place, which the published code does not look at
        (Prompt("x", tag="complex", nouns=("a", "b"), relation=Relation("a", "near", "b")), "object"),
        # without one of its tags the structure tells
        (Prompt("x", nouns=("a", "b"), relation=Relation("a", "near", "b")), "spatial"),
        (Prompt("x", tag="mine", nouns=("a",), counts=(("a", 2),)), "numeracy"),
        (Prompt("x", nouns=("a", "b"), relation=Relation("a", "behind", "b")), "object"),
    ],
)  # fmt: skip
def test_the_task_is_the_published_one_or_follows_from_the_structure(prompt, task):
    assert task_of(prompt) == task


def test_the_detectors_part_scores_each_task_with_the_published_weights():
    scenes = {
        0: [("dog", LEFT, 0.9), ("cat", RIGHT, 0.9)],  # 0.2 + 0.2 + 0.5
        10: [("dog", TOP, 0.9), ("cat", (6, 12, 10, 16), 0.9)],  # above: 0.9, where the published code gives 0.4
        20: [("dog", LEFT, 0.9), ("cup", RIGHT, 0.9)],  # one dog of two: 0.2; one cup: 1 -> 0.6
        30: [("dog", LEFT, 0.9)],  # one noun of two
        40: None,
        50: [],
    }
    reward, rows = GroundingReward(Boxes(scenes)), batch([SPATIAL, ABOVE, NUMERACY, COLOR, OBJECT, EMPTY])
    verdicts = reward(rows)
    assert verdicts.rewards.tolist() == pytest.approx([0.9, 0.9, 0.6, 0.5, NAN, NAN], nan_ok=True)
    assert verdicts.applies.tolist() == [True] * 5 + [False]


def test_attribute_phrases_are_asked_for_or_nouns_but_not_where_places_or_numbers_are():
    judge = Questions({"red dog?": 0.5, "dog?": 0.8, "cat?": 0.4})
    reward, rows = AttributesReward(judge), batch([SPATIAL, NUMERACY, COLOR, OBJECT, EMPTY])
    verdicts = reward(rows)
    assert verdicts.rewards.tolist() == pytest.approx([NAN, NAN, 0.5, (0.8 + 0.4) / 2, NAN], nan_ok=True)
    assert verdicts.applies.tolist() == [False, False, True, True, False]
    assert judge.asked == ["red dog?", "dog?", "cat?"]


def judges():
    orm = {ORM_QUESTION.replace("{prompt}", prompt.text): 0.7 for prompt in (SPATIAL, COLOR)}
    return {
        "preference": Brightness(),
        "attributes": Questions({"red dog?": 0.5}),
        "grounding": Boxes({0: [("dog", LEFT, 0.9)], 10: [("dog", LEFT, 0.9), ("cat", RIGHT, 0.9)]}),
        "orm": Questions(orm),
    }


def test_the_ensemble_is_the_sum_of_the_judges_that_apply():
    reward, rows = load_reward("t2i-r1", **judges()), batch([SPATIAL, COLOR])
    # brightness 0.0, 0.1; attributes none, 0.5; grounding 0.2, 2/2; orm 0.7 both
    assert reward.name == "t2i-r1"
    verdicts = reward(rows)
    assert verdicts.rewards.tolist() == pytest.approx([0.0 + 0.2 + 0.7, 0.1 + 0.5 + 1.0 + 0.7])
    parts = {name: values.tolist() for name, values in verdicts.parts.items()}
    assert parts["attributes"] == pytest.approx([NAN, 0.5], nan_ok=True) and list(parts) == list(judges())


def test_the_ensemble_takes_the_judges_that_are_there_and_at_least_one():
    two = {name: judge for name, judge in judges().items() if name in ("preference", "orm")}
    assert load_reward("t2i-r1", **two)(batch([SPATIAL, COLOR])).rewards.tolist() == pytest.approx([0.7, 0.8])
    with pytest.raises(UserError, match="t2i-r1 has no judge"):
        load_reward("t2i-r1")


def test_a_judge_without_a_verdict_makes_the_sum_nan():
    bright = rollouts([COLOR], torch.full((1, 16, 16, 3), 255, dtype=torch.uint8), [""])
    assert load_reward("t2i-r1", preference=Brightness())(bright).rewards.isnan().all()
