"""The judge `openai` against a real `transformers serve` on loopback, which ignores log-probs."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tests.judges import helpers_vlm as tiny

from thinkdraw.errors import UserError
from thinkdraw.judges.openai_judge import MAX_ANSWER_TOKENS, OpenAIJudge
from thinkdraw.judges.vlm import VlmJudge
from thinkdraw.judges.yes_no import QUESTION_FORMAT, parse_yes_no
from thinkdraw.types import Request

COMMAND = Path(sys.executable).with_name("transformers")
START_S = 240  # a busy machine imports slowly
QUESTIONS = ["Is there a cup?", "a?", "two cups", "Is there a red circle in the picture?"] * 4


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def is_up(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """(folder of the model, base_url); LLaVA, since the server opens video processors, which need torchvision."""
    if not COMMAND.exists():
        pytest.skip(f"{COMMAND} is absent")
    folder, port = tiny.llava(tmp_path_factory.mktemp("served")), free_port()
    log = folder.parent / "serve.log"
    options = ["--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as output:
        server = subprocess.Popen(
            [COMMAND, "serve", folder, *options],
            stdout=output,
            stderr=output,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        deadline = time.monotonic() + START_S
        while not is_up(port):
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.skip(f"transformers serve does not start: {log.read_text()[-500:]}")
            time.sleep(0.2)
        yield folder, f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder)


def test_verdicts_equal_the_local_greedy_answers(served):
    folder, url = served
    judge = OpenAIJudge(str(folder), url, max_concurrent=4)
    local = VlmJudge(folder, device="cpu", max_new_tokens=MAX_ANSWER_TOKENS)
    pictures = tiny.pictures(16)
    asked = [QUESTION_FORMAT.replace("{question}", question) for question in QUESTIONS]
    answers = local.write([Request(text, (picture,)) for text, picture in zip(asked, pictures.numpy())])
    expected = [parse_yes_no(answer) for answer in answers]
    assert judge.hard and judge.revision == f"{url} {folder} ({folder}@main) answer"
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
