import math

import numpy as np
import pytest
import torch
from tests.benchmarks.stub import rollouts

from thinkdraw.errors import UserError
from thinkdraw.lab.scenes import Scene, SceneObject, draw
from thinkdraw.rewards import REWARDS, load_reward
from thinkdraw.rewards.lab_detector import LabDetectorReward, facts_hold, judge
from thinkdraw.runtime.registry import find
from thinkdraw.types import Prompt, Question

RING = SceneObject("ring", "red", "small", "striped", 3, 0)
CUP = SceneObject("cup", "blue", "large", "solid", 3, 6)
CLAUSES = Prompt(
    "a small striped ring left of a blue cup", tag="position",
    include=(
        {"class": "cup", "count": 1, "color": "blue"},
        {"class": "small striped ring", "count": 1, "position": ["left of", 0]},
    ),
)  # fmt: skip
QUESTIONS = Prompt(
    "a red ring on gray", tag="dense",
    questions=(
        Question(0, "is there a ring?", (), {"kind": "exists", "thing": {"shape": "ring"}}),
        Question(1, "is the ring red?", (0,), {"kind": "exists", "thing": {"shape": "ring", "color": "red"}}),
        Question(2, "is the background gray?", (), {"kind": "background", "name": "gray"}),
    ),
)  # fmt: skip


def picture(*things, background="white"):
    return draw(Scene(things, background))


def batch(prompts, pictures):
    return rollouts(prompts, torch.from_numpy(np.stack(pictures)), [""] * len(prompts))


@pytest.mark.parametrize(
    ("things", "share", "reason"),
    [
        ((RING, CUP), 4 / 4, ""),
        ((RING,), 1 / 4, "expected cup>=1, found 0\nno target for small striped ring to be left of"),
        ((SceneObject("ring", "red", "large", "striped", 3, 0), CUP), 2 / 4, "expected small striped ring>=1, found 0"),
        ((RING, SceneObject("cup", "red", "large", "solid", 3, 6)), 3 / 4, None),
        (
            (SceneObject("ring", "red", "small", "striped", 3, 6), SceneObject("cup", "blue", "large", "solid", 3, 0)), 3 / 4,
            "expected small striped ring left of target, found right of target",
        ),
    ],
)  # fmt: skip
def test_clauses_are_judged_by_genevals_rules_with_sizes_and_textures_in_the_class(things, share, reason):
    # facts: a cup exists, it is blue, a small striped ring exists, it is left of the cup
    verdict = judge(picture(*things), CLAUSES)
    assert (verdict.share, verdict.correct) == (share, share == 1)
    assert reason is None or verdict.reason == reason


def test_a_detection_stands_under_every_class_that_it_fits():
    prompt = Prompt(
        "x", tag="two_object", include=({"class": "ring", "count": 1}, {"class": "striped ring", "count": 1})
    )
    assert judge(picture(RING), prompt).correct


def test_counts_are_exact():
    prompt = Prompt(
        "two rings", tag="counting", include=({"class": "ring", "count": 2},), exclude=({"class": "ring", "count": 3},)
    )
    rings = [SceneObject("ring", "red", "large", "solid", row, col) for row, col in ((0, 0), (0, 6), (6, 0))]
    assert [judge(picture(*rings[:n]), prompt).share for n in (1, 2, 3)] == [0.5, 1.0, 0.5]


@pytest.mark.parametrize(
    ("made", "share"),
    [
        (picture(RING, background="gray"), 3 / 3),
        (picture(SceneObject("ring", "blue", "small", "solid", 0, 0), background="gray"), 2 / 3),
        (picture(CUP, background="gray"), 1 / 3),
        (picture(CUP), 0 / 3),
    ],
)
def test_questions_count_where_they_are_true(made, share):
    assert judge(made, QUESTIONS).share == pytest.approx(share)


def test_a_question_counts_only_if_what_it_depends_on_is_true():
    # no ring: "is there something red?" is true and does not count
    red = Question(1, "is it red?", (0,), {"kind": "exists", "thing": {"color": "red"}})
    prompt = Prompt("a red ring", tag="dense", questions=(QUESTIONS.questions[0], red))
    verdict = judge(picture(SceneObject("cup", "red", "large", "solid", 0, 0)), prompt)
    assert verdict.share == 0 and verdict.reason == "no: is there a ring?\nno: is it red?"
    assert facts_hold(prompt, verdict.contents) == [False, True]


def test_places_in_questions_follow_genevals_rule_for_boxes():
    # 48 px right, 32 down: (48 − 3.2) / 57.7 > 0.5 is left of, though the lab draws it only where |dx| ≥ 2 |dy|
    place = {"kind": "relation", "thing": {"shape": "ring"}, "relation": "left of", "other": {"shape": "square"}}
    prompt = Prompt("x", questions=(Question(0, "is the ring left of the square?", (), place),))
    ring = SceneObject("ring", "red", "large", "solid", 0, 0)
    made = [picture(ring, SceneObject("square", "blue", "large", "solid", row, col)) for row, col in ((4, 6), (6, 1))]
    assert [judge(p, prompt).correct for p in made] == [True, False]


@pytest.mark.parametrize(("weight", "values"), [(0.5, [1.0, 0.375]), (0.0, [1.0, 0.75]), (1.0, [1.0, 0.0])])
def test_the_reward_mixes_the_share_of_facts_with_the_strict_verdict(weight, values):
    swapped = picture(
        SceneObject("ring", "red", "small", "striped", 3, 6), SceneObject("cup", "blue", "large", "solid", 3, 0)
    )
    rows = batch([CLAUSES, CLAUSES], [picture(RING, CUP), swapped])
    reward = load_reward("lab-detector", strict_weight=weight)
    assert isinstance(reward, LabDetectorReward)
    verdicts = reward(rows)
    assert verdicts.rewards.tolist() == values and verdicts.rewards.dtype == torch.float32
    parts = verdicts.parts
    assert parts["facts"].tolist() == [1.0, 0.75] and parts["correct"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt("a dog"), "neither clauses nor questions"),
        (Prompt("a dog", include=({"class": "dog", "count": 1},)), "'dog' of prompt 'a dog' is not a thing of the lab"),
        (Prompt("x", include=({"class": "small", "count": 1},)), "'small' of prompt"),
        (Prompt("x", questions=(Question(0, "nice?"),)), "has no fact"),
    ],
)
def test_prompts_that_the_lab_cannot_judge_are_named(prompt, message):
    with pytest.raises(UserError, match=message):
        judge(picture(RING), prompt)


class Likes:
    def score(self, pictures, texts):
        return torch.zeros(len(texts))


class Answers:
    def __init__(self, *values):
        self.values, self.calls = values, []

    def answer(self, pictures, questions):
        self.calls.append(list(questions))
        return torch.tensor(self.values[: len(questions)])


def test_the_judges_reward_is_the_mean_of_p_yes_over_each_prompts_own_questions_in_one_call():
    one = Prompt("x", questions=(Question(0, "is it?"),))
    judge = Answers(0.9, 0.6, 0.3, 0.2)
    reward = load_reward("lab-judge", questioner=judge)
    values = reward(batch([QUESTIONS, one], [picture(RING), picture(CUP)])).rewards
    assert values.tolist() == pytest.approx([(0.9 + 0.6 + 0.3) / 3, 0.2])
    assert judge.calls == [["is there a ring?", "is the ring red?", "is the background gray?", "is it?"]]


def test_a_question_without_verdict_makes_its_own_picture_nan_and_no_other():
    reward = load_reward("lab-judge", questioner=Answers(0.9, math.nan, 0.3, 0.6, 0.6, 0.6))
    values = reward(batch([QUESTIONS, QUESTIONS], [picture(RING)] * 2)).rewards
    assert math.isnan(values[0]) and values[1].item() == pytest.approx(0.6)


def test_prompts_without_questions_are_refused_by_the_judge():
    with pytest.raises(UserError, match="has no questions"):
        load_reward("lab-judge", questioner=Answers(0.5))(batch([CLAUSES], [picture(RING)]))


def test_rewards_need_pictures():
    for reward in (load_reward("lab-detector"), load_reward("lab-judge", questioner=Answers(0.5))):
        with pytest.raises(ValueError, match="have no pictures"):
            reward(rollouts([QUESTIONS], None, [""]))


def test_every_registered_reward_can_be_found_and_a_dotted_path_works():
    assert all(callable(find("reward", REWARDS, name)) for name in REWARDS)
    settings = {"lab-detector": {}, "lab-judge": {"questioner": Answers(0.5)}, "lab-clip": {"scorer": Likes()}}
    assert all(load_reward(name, **given).name == name for name, given in settings.items())
    assert load_reward("thinkdraw.rewards.lab_detector:LabDetectorReward").name == "lab-detector"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lab-detektor", {}, "did you mean lab-detector"),
        ("zzz", {}, "known are .*lab-clip, lab-detector, lab-judge"),
        ("no_such_package.x:Y", {}, "cannot import no_such_package"),
        ("thinkdraw.rewards.rules:Nothing", {}, "has no Nothing"),
        ("lab-detector", {"weight": 1}, "unexpected keyword argument 'weight'. It takes strict_weight"),
        ("lab-judge", {}, "questioner"),
        ("lab-detector", {"strict_weight": 2}, r"strict_weight=2 must lie in 0\.\.1"),
    ],
)
def test_a_reward_that_cannot_be_made_says_why(name, settings, message):
    with pytest.raises(UserError, match=message):
        load_reward(name, **settings)
