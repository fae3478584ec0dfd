"""The judge `openai` against a real `transformers serve` on loopback, which ignores log-probs."""

import pytest
from tests.judges import helpers_vlm as tiny
from tests.judges.helpers_served import serving

from thinkdraw.errors import UserError
from thinkdraw.judges.questioners.vlm import VlmJudge
from thinkdraw.judges.questioners.yes_no import QUESTION_FORMAT, parse_yes_no
from thinkdraw.judges.served import openai_judge
from thinkdraw.judges.served.openai_judge import OpenAIJudge
from thinkdraw.types import Request

QUESTIONS = ["Is there a cup?", "a?", "two cups", "Is there a red circle in the picture?"] * 4


@pytest.fixture(autouse=True)
def a_question_that_these_weights_answer(monkeypatch):
    """They are random, and babble to the usual one."""
    monkeypatch.setattr(openai_judge, "TEST_QUESTION", "Is there a cup?")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(folder of the model, base_url); LLaVA, since the server opens video processors, which need torchvision."""
    folder = tiny.llava(tmp_path_factory.mktemp("served") / "llava")
    with serving(folder) as url:
        yield folder, url


def test_verdicts_equal_the_local_greedy_answers(served):
    folder, url = served
    judge = OpenAIJudge(str(folder), url, max_concurrent=4)
    local = VlmJudge(folder, device="cpu", max_new_tokens=judge.max_answer_tokens)
    pictures = tiny.pictures(16)
    asked = [QUESTION_FORMAT.replace("{question}", question) for question in QUESTIONS]
    answers = local.write([Request(text, (picture,)) for text, picture in zip(asked, pictures.numpy())])
    expected = [parse_yes_no(answer) for answer in answers]
    assert judge.hard and judge.revision == f"{folder} ({folder}@main) answer"
    assert judge.answer(pictures, QUESTIONS).tolist() == pytest.approx(expected, nan_ok=True)
    assert {0.0, 1.0} <= set(expected)  # both verdicts are among them
    assert judge.failures.total() == sum(verdict != verdict for verdict in expected)


def test_asked_for_log_probs_that_do_not_come_are_an_error_at_the_start(served):
    folder, url = served
    with pytest.raises(UserError, match="answers without top_logprobs"):
        OpenAIJudge(str(folder), url, mode="logprobs")


def test_a_model_that_is_not_served_is_an_error_at_the_start(served):
    with pytest.raises(UserError, match="Server is pinned to") as caught:
        OpenAIJudge("other", served[1], max_retries=0)
    assert "\n" not in str(caught.value)
