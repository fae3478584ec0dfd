import dataclasses
import math

import pytest
import torch
from tests.benchmarks.stub import rollouts
from tests.rewards.judges import Questions

from thinkdraw.errors import UserError
from thinkdraw.lab.scenes import Scene, SceneObject, draw
from thinkdraw.rewards import load_reward
from thinkdraw.rewards.thoughts.faithful import QUESTION, sentences
from thinkdraw.types import Prompt, Sampling

NAN = math.nan
RING = draw(Scene((SceneObject("ring", "red", "small", "solid", 0, 0),), "gray"))


def batch(*thoughts, sampling=None):
    pictures = torch.from_numpy(RING)[None].expand(len(thoughts), -1, -1, -1)
    return rollouts([Prompt("a ring")] * len(thoughts), pictures, thoughts, sampling)


def test_a_thought_is_well_formed_if_it_is_there_and_ended_by_itself():
    rows = batch("a red ring.", "  ", "a red ring.")
    of_text = torch.tensor([True, True, False, False, False])
    mask = rows.mask.clone()
    mask[2, 1] = False  # begin-of-image was forced
    rows = dataclasses.replace(rows, mask=mask, is_image=rows.is_image & ~of_text, segment=rows.segment * ~of_text)
    assert load_reward("thought-format")(rows).rewards.tolist() == [1, 0, 0]


def test_a_rewritten_thought_that_fills_its_budget_was_cut():
    for budget, formed in ((1, 0.0), (2, 1.0)):  # the stub's rows have one text token
        sampling = Sampling(thought="rewrite", max_thought_tokens=budget)
        assert load_reward("thought-format")(batch("a ring", sampling=sampling)).rewards.item() == formed


def test_a_pattern_must_match_the_whole_thought():
    rows = batch("Plan: a ring.\nIt is red.", "a ring. Plan: none", "Plan:")
    assert load_reward("thought-format", pattern="Plan: .+")(rows).rewards.tolist() == [1, 0, 0]
    with pytest.raises(UserError, match=r"pattern='\(' is no regular expression"):
        load_reward("thought-format", pattern="(")


@pytest.mark.parametrize(
    ("words", "value"), [(0, 0), (1, 0.5), (2, 0.75), (3, 1), (6, 1), (7, 0.75), (9, 0.25), (10, 0), (99, 0)]
)
def test_length_is_1_in_the_band_and_falls_linearly_outside(words, value):
    # band 3..6, fade 4: each word outside costs a quarter; at 0 words 3 outside would be 0.25
    value = 0.25 if words == 0 else value
    reward = load_reward("thought-length", low=3, high=6, fade=4)
    assert reward(batch(" ".join(["word"] * words))).rewards.item() == value


def test_a_band_that_is_none_is_refused():
    with pytest.raises(UserError, match="low=6, high=3"):
        load_reward("thought-length", low=6, high=3)


def test_the_form_of_thoughts_does_not_apply_where_the_policy_does_not_think():
    rows = batch("", "", sampling=Sampling(thought="off"))
    for name in ("thought-format", "thought-length"):
        reward = load_reward(name)
        verdicts = reward(rows)
        assert verdicts.rewards.isnan().all() and not verdicts.applies.any()


@pytest.mark.parametrize(
    ("thought", "parts"),
    [
        ("A red ring. It is small; the ground is gray!", ["A red ring.", "It is small;", "the ground is gray!"]),
        ("first line\nsecond 3.5 line", ["first line", "second 3.5 line"]),
        ("...", []),
        ("", []),
    ],
)
def test_sentences_end_where_a_stop_is_followed_by_a_blank(thought, parts):
    assert sentences(thought) == parts


def test_faithfulness_is_the_mean_p_yes_over_the_thoughts_sentences():
    known = {QUESTION.replace("{sentence}", said): p for said, p in (("a ring.", 0.9), ("a cup.", 0.1), ("bad.", NAN))}
    judge = Questions(known)
    reward, rows = load_reward("thought-faithful", questioner=judge), batch("a ring. a cup.", "", "a ring. bad.")
    verdicts = reward(rows)
    assert verdicts.rewards.tolist() == pytest.approx([0.5, NAN, NAN], nan_ok=True)
    assert verdicts.applies.tolist() == [True, False, True]  # the empty thought announced nothing


def test_of_a_long_thought_the_first_sentences_are_asked_for():
    judge = Questions({"is a. so?": 1.0})
    reward = load_reward("thought-faithful", questioner=judge, question="is {sentence} so?", max_sentences=1)
    assert reward(batch("a. b. c.")).rewards.item() == 1 and judge.asked == ["is a. so?"]
    with pytest.raises(UserError, match=r"has no {sentence}"):
        load_reward("thought-faithful", questioner=judge, question="is it so?")


def test_the_labs_faithfulness_is_the_share_of_claims_that_the_detector_confirms():
    # a small red ring stands top left on gray
    rows = batch(
        "a small red ring at the top left. gray background.",  # thing, place, background: 3 of 3
        "a small red ring at the bottom left. the background is white.",  # 1 of 3
        "a blue cup, center.",  # 0 of 2
        "let me think.",  # claims nothing
    )
    reward = load_reward("lab-thought-faithful")
    verdicts = reward(rows)
    assert verdicts.rewards.tolist() == pytest.approx([1, 1 / 3, 0, NAN], nan_ok=True)
    assert verdicts.applies.tolist() == [True, True, True, False]
