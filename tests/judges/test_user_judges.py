"""Whatever a judge of the user's own raises or gives is one line with its name, what came and what is wanted."""

import math

import numpy as np
import pytest
import torch

from thinkdraw.errors import OwnCodeError, UserError
from thinkdraw.judges import load_judge
from thinkdraw.judges.lab import LabDetector
from thinkdraw.judges.user_judges import METHODS, with_checked_answers
from thinkdraw.types import Detection, Detector, Questioner, Request, Scorer, Writer

PICTURES = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
BOX = Detection("cat", (0.0, 0.0, 1.0, 1.0), 0.9)


class Mine:
    """Gives what it is told to, or raises it."""

    def __init__(self, said) -> None:
        self.said = said

    def _said(self):
        if isinstance(self.said, BaseException):
            raise self.said
        return self.said

    def answer(self, pictures, questions):
        return self._said()

    def score(self, pictures, texts):
        return self._said()

    def detect(self, pictures, labels=None):
        return self._said()

    def write(self, requests):
        return self._said()


ASKED = {
    "answer": (PICTURES, ["a?", "b?"]),
    "score": (PICTURES, ["a", "b"]),
    "detect": (PICTURES,),
    "write": ([Request("a"), Request("b")],),
}
ODD = [None, 0.5, "yes", [0.5], torch.rand(3), torch.rand(2, 1), {"a": 1}, ["x", object()], [["cat"], []], object()]


@pytest.mark.parametrize("method", ASKED)
@pytest.mark.parametrize("said", ODD, ids=repr)
def test_an_odd_answer_is_named_with_what_is_wanted(method, said):
    judge = with_checked_answers("mine:Mine", Mine(said))
    with pytest.raises(OwnCodeError, match=rf"^judge mine:Mine\.{method} gave .* has to give .*: 2 here\.$") as error:
        getattr(judge, method)(*ASKED[method])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("error", [KeyError("score"), AssertionError(), ZeroDivisionError("by\nzero"), SystemExit(3)])
def test_what_it_raises_is_named_with_its_line(error):
    judge = with_checked_answers("mine:Mine", Mine(error))
    with pytest.raises(
        OwnCodeError, match=rf"mine:Mine\.score raised {type(error).__name__}.*\(test_user_judges\.py line \d+\)"
    ):
        judge.score(PICTURES, ["a", "b"])
    with pytest.raises(UserError, match="as it is"):
        with_checked_answers("m", Mine(UserError("as it is"))).score(PICTURES, ["a", "b"])
    with pytest.raises(KeyboardInterrupt):
        with_checked_answers("m", Mine(KeyboardInterrupt())).score(PICTURES, ["a", "b"])


def test_probabilities_are_in_range_and_numbers_of_any_kind_will_do():
    for said in ([0.5, math.nan], np.array([0.0, 1.0]), torch.tensor([0.25, 1.0], dtype=torch.bfloat16), (0, 1)):
        answer = with_checked_answers("m", Mine(said)).answer(PICTURES, ["a?", "b?"])
        assert answer.dtype == torch.float32 and answer.shape == (2,)
    for said in ([0.5, 1.5], [-1.0, 0.5], [math.inf, 0.5]):
        with pytest.raises(OwnCodeError, match=r"numbers from .*P\(yes\)"):
            with_checked_answers("m", Mine(said)).answer(PICTURES, ["a?", "b?"])
        assert len(with_checked_answers("m", Mine(said)).score(PICTURES, ["a", "b"])) == 2
    assert with_checked_answers("m", Mine([[BOX], None])).detect(PICTURES) == [[BOX], None]
    assert with_checked_answers("m", Mine(["a", None])).write(ASKED["write"][0]) == ["a", None]


def test_a_checked_judge_is_still_what_it_was():
    judge = Mine([0.5, 0.5])
    same = with_checked_answers("m", judge)
    assert same is judge and isinstance(judge, Mine) and type(judge).__name__ == "Mine"
    assert type(judge).__module__ == __name__ and with_checked_answers("m", judge) is judge
    for protocol in (Questioner, Scorer, Detector, Writer):
        assert isinstance(judge, protocol)
    ours = LabDetector()
    assert type(with_checked_answers("lab-detector", ours)) is LabDetector and set(ASKED) < set(METHODS)


def test_a_judge_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "my_broken_judge.py").write_text(
        "class Mine:\n    def score(self, p, t): return p\n    def __init__(self): 1 / 0\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        OwnCodeError, match=r"judge my_broken_judge:Mine raised ZeroDivisionError.*my_broken_judge\.py line 3"
    ):
        load_judge("my_broken_judge:Mine")
