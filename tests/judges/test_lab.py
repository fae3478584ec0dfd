import numpy as np
import pytest
import torch

from thinkdraw.judges.lab import LabDetector, PolicyQuestioner
from thinkdraw.lab.scenes import draw, random_scene
from thinkdraw.types import Detector, Questioner


def pictures(count):
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.stack([draw(random_scene(1 + i % 3, rng)) for i in range(count)]))


class Counting:
    """P(yes) = the pair's number in the call / 10, NaN for the question "?"."""

    def __init__(self):
        self.calls = []

    def answer(self, pictures, questions):
        self.calls.append(len(questions))
        return torch.tensor(
            [float("nan") if q == "?" else i / 10 for i, q in enumerate(questions)], dtype=torch.float64
        )


def test_the_lab_judges_keep_their_protocols():
    assert isinstance(LabDetector(), Detector) and isinstance(PolicyQuestioner(Counting()), Questioner)


def test_the_detector_finds_as_many_things_as_were_drawn():
    assert [len(found) for found in LabDetector().detect(pictures(6))] == [1, 2, 3, 1, 2, 3]
    kept = LabDetector().detect(pictures(6), [["no such shape"]] * 6)
    assert kept == [[]] * 6


def test_pictures_in_another_form_are_refused():
    with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
        LabDetector().detect(pictures(1).float())


def test_pairs_are_asked_in_few_calls_and_no_verdict_stays_nan():
    judge = Counting()
    answers = PolicyQuestioner(judge, max_pairs=3).answer(pictures(4), ["a", "?", "c", "d"])
    assert judge.calls == [3, 1] and answers.dtype == torch.float32
    assert torch.allclose(answers, torch.tensor([0.0, float("nan"), 0.2, 0.0]), equal_nan=True)


def test_pictures_without_their_question_are_refused():
    with pytest.raises(ValueError, match="2 pictures and 1 questions"):
        PolicyQuestioner(Counting()).answer(pictures(2), ["a"])
    with pytest.raises(TypeError, match=r"int has no \.answer"):
        PolicyQuestioner(3)
