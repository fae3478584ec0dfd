import math
from collections import Counter

import numpy as np
import pytest
import torch
from tests.benchmarks.stub import StubPolicy, answer

from thinkdraw.benchmarks.lab.benchmark import evaluate_lab
from thinkdraw.benchmarks.lab.understanding import (
    agreement_on_drawn,
    evaluate_understanding,
    question_set,
    understanding_difference,
)
from thinkdraw.errors import UserError
from thinkdraw.lab.detector import detect_objects
from thinkdraw.lab.facts import QUESTION_TYPES
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.lab.scenes import draw
from thinkdraw.rewards.lab_detector import facts_hold

PER_TYPE = 20


class Knows:
    """Right about the pictures of a question set with probability `right`; about others it says yes with 0.6."""

    def __init__(self, asked, right=1.0):
        rng = np.random.default_rng(0)
        flip = rng.random(len(asked.answers)) > right
        truth = asked.answers ^ flip
        self.known = {(p.numpy().tobytes(), q): t for p, q, t in zip(asked.pictures, asked.questions, truth)}

    def answer(self, pictures, questions):
        found = [self.known.get((p.numpy().tobytes(), q)) for p, q in zip(pictures, questions)]
        return torch.tensor([0.6 if t is None else 0.9 if t else 0.2 for t in found])


def test_half_of_the_questions_of_each_type_are_true():
    asked = question_set(PER_TYPE)
    assert asked.pictures.shape == (7 * PER_TYPE, 64, 64, 3) and len(set(asked.questions)) > 2.5 * PER_TYPE
    assert Counter(zip(asked.kinds, asked.answers.tolist())) == {
        (kind, answer): PER_TYPE / 2 for kind in QUESTION_TYPES for answer in (True, False)
    }


def test_every_question_is_asked_of_two_pictures_that_differ_and_has_each_answer_once():
    asked = question_set(PER_TYPE)
    pictures = asked.pictures.numpy()
    for i in range(0, len(pictures), 2):
        assert asked.questions[i] == asked.questions[i + 1] and asked.answers[i] and not asked.answers[i + 1]
        changed = (pictures[i] != pictures[i + 1]).any(2)
        assert changed.any()


def test_the_same_seed_asks_the_same_and_another_asks_others():
    one, two, other = question_set(4, 1), question_set(4, 1), question_set(4, 2)
    assert one.questions == two.questions and torch.equal(one.pictures, two.pictures)
    assert one.questions != other.questions


def test_an_odd_number_of_questions_is_refused():
    with pytest.raises(UserError, match="questions_per_type=3"):
        question_set(3)


def test_an_evaluation_refuses_an_odd_number_before_it_draws():
    with pytest.raises(UserError, match="questions_per_type=1"):
        evaluate_lab(Knows(question_set(PER_TYPE)), count=6, questions_per_type=1)  # pyright: ignore[reportArgumentType]


def test_one_who_knows_scores_one_and_is_at_chance_on_blank_pictures():
    report = evaluate_understanding(Knows(question_set(PER_TYPE)), PER_TYPE)
    assert report.pictures.accuracy.value == report.pictures.auroc == 1 and report.pictures.yes_frac == 0.5
    # "yes" to everything: right for half of each type, and no order among equals
    assert report.blanked.accuracy.value == report.blanked.auroc == 0.5 and report.blanked.yes_frac == 1


def test_accuracy_is_the_mean_over_types_with_an_interval():
    report = evaluate_understanding(Knows(question_set(PER_TYPE), right=0.7), PER_TYPE).pictures
    assert report.accuracy.value == pytest.approx(np.mean([s.value for s in report.per_type.values()]))
    assert report.accuracy.low < report.accuracy.value < report.accuracy.high < 1
    assert list(report.per_type) == list(QUESTION_TYPES)


def test_only_what_is_seen_is_answered_right():
    summary = evaluate_understanding(StubPolicy([]), PER_TYPE).summary()
    assert summary["per_type"]["background"]["value"] == 1 and summary["blanked"]["accuracy"] < summary["accuracy"]


def test_no_verdict_is_counted_and_left_out():
    class Silent:
        def answer(self, pictures, questions):
            return torch.full((len(questions),), math.nan)

    report = evaluate_understanding(Silent(), 2).pictures
    assert report.accuracy.num_no_verdict == 14 and math.isnan(report.accuracy.value) and math.isnan(report.auroc)


def test_two_who_were_asked_the_same_are_compared_question_by_question():
    asked = question_set(PER_TYPE)
    one, two, other = (
        evaluate_understanding(Knows(asked, right), PER_TYPE, seed).summary()
        for right, seed in ((1.0, 0), (0.7, 0), (1.0, 1))
    )
    same = understanding_difference(one, one)
    assert same is not None and same.value == 0 and -0.2 < same.low < 0 < same.high < 0.2
    found = understanding_difference(two, one)
    assert found is not None and found.value == pytest.approx(two["accuracy"] - one["accuracy"])
    assert -0.5 < found.low < found.value < found.high < 0
    assert understanding_difference(one, other) is understanding_difference(one, {}) is None


EXAMPLES = prompt_set("compbench", "test", 24)


def drawn_by_chance():
    """Every second picture was drawn for the next prompt."""
    rng = np.random.default_rng(0)
    made = [draw(EXAMPLES[i - i % 2].scene(rng)) for i in range(len(EXAMPLES))]
    return torch.from_numpy(np.stack(made)), [example.prompt for example in EXAMPLES]


class SeesAll:
    def __init__(self, pictures, prompts):
        self.truth = {}
        for picture, prompt in zip(pictures.numpy(), prompts):
            for question, held in zip(prompt.questions, facts_hold(prompt, detect_objects(picture))):
                self.truth[picture.tobytes(), question.text] = held

    def answer(self, pictures, questions):
        return torch.tensor([0.3 + 0.1 * self.truth[p.numpy().tobytes(), q] for p, q in zip(pictures, questions)])


def test_a_questioner_that_orders_answers_as_the_detector_agrees_whatever_its_threshold():
    pictures, prompts = drawn_by_chance()
    found = agreement_on_drawn(SeesAll(pictures, prompts), pictures, prompts, num_resamples=50)
    assert (found.auroc, found.low, found.high) == (1, 1, 1) and 0.3 < found.true_frac < 0.9
    assert found.questions == sum(len(p.questions) for p in prompts)


def test_a_questioner_that_does_not_look_agrees_by_chance():
    pictures, prompts = drawn_by_chance()

    class Blind:
        def answer(self, pictures, questions):
            return torch.tensor([answer(np.zeros((64, 64, 3), np.uint8), q) for q in questions])

    found = agreement_on_drawn(Blind(), pictures, prompts, num_resamples=100)
    assert found.low < 0.55 and found.low < found.auroc < found.high


def test_each_picture_needs_its_prompt():
    pictures, prompts = drawn_by_chance()
    with pytest.raises(ValueError, match="24 pictures and 3 prompts"):
        agreement_on_drawn(StubPolicy([]), pictures, prompts[:3])
