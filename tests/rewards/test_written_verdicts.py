"""Rewards that read a verdict in what a judge writes: reasongen, unified-reward, pairwise."""

import math

import pytest
import torch
from tests.benchmarks.stub import rollouts
from tests.rewards.judges import Replies

from thinkdraw.errors import OwnCodeError, UserError
from thinkdraw.rewards import load_reward
from thinkdraw.rewards.papers.pairwise import first_wins
from thinkdraw.rewards.papers.reasongen import boxed_verdict
from thinkdraw.rewards.papers.unified_reward import final_score
from thinkdraw.types import Prompt

NAN = math.nan


def batch(*texts, group_size=1):
    pictures = torch.arange(len(texts), dtype=torch.uint8)[:, None, None, None].expand(-1, 4, 4, 3)
    rows = rollouts([Prompt(text) for text in texts], pictures.contiguous(), [""] * len(texts))
    return rows.select(range(len(texts)), group_size)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        (r"A red dog on grass. All is there. \boxed{1}", 1),
        (r"The dog is blue. \boxed{0}", 0),
        (r"\boxed{1}", 1),
        (r"\boxed{ 1 }", 1),
        ("\\boxed{\n0\n}", 0),
        (r"At first \boxed{1}, but the cat is missing: \boxed{0}", 0),
        (r"\boxed{1} as the box says.", 1),
        (r"\boxed{1|0}", NAN),
        (r"\boxed{yes}", NAN),
        (r"\boxed{10}", NAN),
        (r"\boxed{1.0}", 1),
        (r"\boxed{1.5}", NAN),
        (r"\boxed{}", NAN),
        (r"\boxed{\text{1}}", 1),
        (r"\boxed{\text{10}}", NAN),
        (r"<think>perhaps \boxed{1}</think> \boxed{0}", 0),
        (r"<think>perhaps \boxed{1}", NAN),
        (r"\boxed 1", NAN),
        (r"\boxed{1", NAN),
        (r"\boxed{0} and then \boxed{1", NAN),  # cut within its verdict
        ("boxed{1}", NAN),
        ("1", NAN),
        ("", NAN),
    ],
)
def test_a_boxed_verdict_is_read_exactly(reply, verdict):
    assert boxed_verdict(reply) == pytest.approx(verdict, nan_ok=True)


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Good.\nFinal Score: 4", 4),
        ("Final Score: 3.5", 3.5),
        ("Final Score: 4.", 4),
        ("**Final Score:** 2", 2),
        ("**Final Score: 2**", 2),
        ("Final Score:\n5", 5),
        ("Final Score: 4/5", 4),
        ("Final Score: 4 / 5.", 4),
        ("Final Score: 2\nOn reflection. Final Score: 3", 3),
        ("Final Score: 1\nIt is poor.", 1),
        ("final score: 4", 4),
        ("Final Score\uff1a4", 4),
        ("Final Score: 4 out of 5", 4),
        ("Final Score: <score>4</score>", 4),
        ("Final Score: 4<|im_end|>", 4),
        ("Final Score: 4\n</answer>", 4),
        ("Final Score: 4\nI think of the final score: it is fair.", 4),
        ("<think>Final Score: 2</think>Final Score: 4", 4),
        ("<think>Final Score: 2", NAN),
        ("Final Score: .4", NAN),
        ("Final Score: 4 <out of 10>", NAN),
        ("Final Score: 1e-1", NAN),
        ("Final Score: -4", NAN),
        ("Final Score: 10", NAN),
        ("Final Score: 0", NAN),
        ("Final Score: 5.5", NAN),
        ("Final Score: 4/10", NAN),
        ("Final Score: 4 or 5", NAN),
        ("Final Score: 3-4", NAN),
        ("Final Score: four", NAN),
        ("Final Score:", NAN),
        ("Score: 4", NAN),
        ("4", NAN),
        ("", NAN),
    ],
)
def test_a_final_score_is_read_exactly(reply, score):
    assert final_score(reply) == pytest.approx(score, nan_ok=True)


@pytest.mark.parametrize(
    ("reply", "first"),
    [
        ("Better: 1", 1),
        ("It has the dog.\nBetter: 2.", 0),
        ("**Better: tie**", 0.5),
        ("Better: Tie", 0.5),
        ("Better: 1\nNo. Better: 2", 0),
        ("Better: Image 1", 1),
        ('Better: "2"', 0),
        ("better: 2", 0),
        ("Better: 1\nIts colours are better: the red is red.", 1),
        ("Better: Image tie", NAN),
        ("Better: 1 or 2", NAN),
        ("Better: 3", NAN),
        ("Better: neither", NAN),
        ("The first is better.", NAN),
        ("", NAN),
    ],
)
def test_a_comparison_is_read_exactly(reply, first):
    assert first_wins(reply) == pytest.approx(first, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "good", "value"), [("reasongen", r"\boxed{0}", 0), ("unified-reward", "Final Score: 4", 4)]
)
def test_no_reply_and_no_verdict_are_nan_and_never_zero(name, good, value):
    judge = Replies([good, "I cannot say.", None])
    values = load_reward(name, writer=judge)(batch("a dog", "a cat", "a cup")).rewards
    assert values.tolist() == pytest.approx([value, NAN, NAN], nan_ok=True)
    assert [int(r.pictures[0].flatten()[0]) for r in judge.requests] == [0, 1, 2]
    assert all(text in r.text for text, r in zip(("a dog", "a cat", "a cup"), judge.requests))


def test_an_instruction_of_ones_own_must_name_the_prompt():
    judge = Replies([r"\boxed{1}"])
    load_reward("reasongen", writer=judge, instruction="Is it {prompt}?")(batch("a dog"))
    assert judge.requests[0].text == "Is it a dog?"
    for name in ("reasongen", "unified-reward", "pairwise"):
        with pytest.raises(UserError, match=r"has no {prompt}"):
            load_reward(name, writer=judge, instruction="Is it good?")


def test_a_judge_that_loses_a_reply_is_an_error():
    with pytest.raises(OwnCodeError, match=r"judge replies\.write gave 1 items\. .* for each request: 2 here"):
        load_reward("reasongen", writer=Replies([r"\boxed{1}"]))(batch("a", "b"))


def brighter(request):
    a, b = (int(picture.flatten()[0]) for picture in request.pictures)
    return f"Better: {1 if a > b else 2}"


def test_the_win_rate_is_the_share_of_comparisons_won_in_the_group():
    # brightness 0, 1, 2 | 3, 4, 5: in each group the first wins none of 2, the second 1, the third 2
    judge = Replies(brighter)
    values = load_reward("pairwise", writer=judge)(batch(*["a dog"] * 3, *["a cat"] * 3, group_size=3)).rewards
    assert values.tolist() == [0, 0.5, 1, 0, 0.5, 1]
    assert len(judge.requests) == 2 * 3 * 2
    assert [("a dog" in r.text, "a cat" in r.text) for r in judge.requests] == [(True, False)] * 6 + [(False, True)] * 6


def test_a_judge_that_always_prefers_the_first_picture_gives_ties():
    values = load_reward("pairwise", writer=Replies(lambda _: "Better: 1"))(batch("a", "a", "a", group_size=3)).rewards
    assert values.tolist() == [0.5, 0.5, 0.5]


def test_a_tie_in_one_order_and_a_win_in_the_other_count_three_quarters():
    # shown (0, 1): tie -> 0.5 for the first; shown (1, 0): 2 -> 1 for the first; mean 0.75
    assert load_reward("pairwise", writer=Replies(["Better: tie", "Better: 2"]))(
        batch("a", "a", group_size=2)
    ).rewards.tolist() == [0.75, 0.25]


def test_a_pair_with_a_missing_verdict_is_left_out_and_a_picture_without_pairs_is_nan():
    # pairs in order: 01 02 10 12 20 21. Picture 0 against 1 fails in one order, and against 2 in both.
    replies = ["Better: 1", None, "?", "Better: 1", None, "Better: 2"]
    values = load_reward("pairwise", writer=Replies(replies))(batch("a", "a", "a", group_size=3)).rewards
    assert values.tolist() == pytest.approx([NAN, 1, 0], nan_ok=True)


def test_rollouts_that_are_not_in_groups_have_nothing_to_compare():
    with pytest.raises(UserError, match="in groups of 1"):
        load_reward("pairwise", writer=Replies([]))(batch("a", "b"))
