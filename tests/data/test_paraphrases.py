import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

from thinkdraw.data.paraphrases import ParaphraseSettings, find_change, paraphrase
from thinkdraw.data.templates import Vocabulary, compbench_prompt, geneval_prompt
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.runtime.http import NoAnswer
from thinkdraw.types import Prompt

SETTINGS = ParaphraseSettings(base_url="http://localhost:1/v1", model="m", frac=1.0, attempts=2, parallel=1)


class Client:
    """Answers like an endpoint's client: with `replies` in turn; keeps what it was asked."""

    def __init__(self, *replies: str | None) -> None:
        self.replies, self.asked = list(replies), []

    def ask(self, path, read, make_body):
        self.asked.append(json.loads(make_body()))
        return read(json.dumps({"choices": self.choices()}).encode())

    def choices(self) -> list:
        return [{"message": {"content": self.replies.pop(0)}}]


def of(text: str, *clauses: dict) -> Prompt:
    return Prompt(text, "id", "tag", clauses)


DOG, CAT = {"class": "dog", "count": 1}, {"class": "cat", "count": 1}
TWO = of("a red dog and a blue cat", DOG | {"color": "red"}, CAT | {"color": "blue"})
MICE = of("three mice", {"class": "mouse", "count": 3})
LEFT = of("a dog left of a cat", CAT, DOG | {"position": ["left of", 0]})
CHAIR = of("a round wooden chair", {"class": "chair", "count": 1, "texture": "wooden", "shape": "round"})
FRUIT = of("a red orange and an orange cat", DOG | {"class": "orange", "color": "red"}, CAT | {"color": "orange"})
LAB = of("a small striped circle", {"class": "small striped circle", "count": 1})
FREE = Prompt("four grey clouds over a lake")


@pytest.mark.parametrize(
    ("prompt", "text", "reason"),
    [
        (TWO, "A blue cat sits with a red dog.", None),
        (TWO, "The dog is red and the cat is blue", None),
        (TWO, "A blue cat sits with a dog.", "color"),
        (TWO, "A red dog alone", "noun"),
        (TWO, "A red dog and a blue cat on a green lawn", "color"),
        (TWO, "A blue dog and a red cat", "binding"),
        (TWO, "Two red dogs and a blue cat", "number"),
        (TWO, "A red dog and a blue cat.", "nothing new"),
        (TWO, "", "nothing new"),
        (MICE, "Exactly 3 small mice in a field", None),
        (MICE, "A trio of mice", "number"),
        (MICE, "three rats", "noun"),
        (LEFT, "To the left of a cat there is a dog", "relation"),  # true, but the check wants it between them
        (LEFT, "The dog is on the left of the cat", None),
        (LEFT, "A cat to the right of a dog", None),
        (LEFT, "A cat left of a dog", "relation"),
        (LEFT, "A dog and a cat", "relation"),
        (LEFT, "A cat and a dog. The dog is to the left of the cat.", None),
        (LEFT, "A dog and a cat. The cat is to the left of the dog.", "relation"),
        (CHAIR, "A chair made of wood, round in outline", None),
        (CHAIR, "A wooden chair", "attribute"),
        (FRUIT, "An orange cat with a red orange", None),
        (LAB, "One circle, striped and small", None),
        (LAB, "One circle, striped", "attribute"),
        (FREE, "4 gray clouds drift above the water", None),
        (FREE, "clouds over a lake", "number"),
        (FREE, "four clouds over a lake", "color"),
    ],
)
def test_what_a_paraphrase_may_not_change(prompt, text, reason):
    assert find_change(prompt, text) == reason


def test_a_made_prompt_with_another_opening_passes_its_own_check():
    rng, words = np.random.default_rng(0), Vocabulary.of(())
    for task in ("counting", "colors", "position", "color_attr"):
        prompt = geneval_prompt(task, rng, words)
        assert find_change(prompt, "In this drawing one sees " + prompt.text.removeprefix("a photo of ")) is None
    for task in ("color", "shape", "texture", "spatial", "numeracy", "complex"):
        prompt = compbench_prompt(task, rng, words)
        assert find_change(prompt, "We see " + prompt.text) is None, prompt.text
    for family in ("geneval", "compbench", "dense"):
        for example in prompt_set(family, "train", 30):
            assert find_change(example.prompt, "We see " + example.prompt.text) is None, example.prompt.text


def test_accepted_replies_replace_the_text_alone_and_refused_ones_are_counted():
    client = Client("A dog.", '<think>hm\n</think>\n"A blue cat and its friend, a red dog"\n', "mice", None)
    done = paraphrase([TWO, MICE], SETTINGS, client)
    assert [p.text for p in done.prompts] == ["A blue cat and its friend, a red dog", "three mice"]
    assert done.prompts[0].include == TWO.include and (done.prompts[0].id, done.prompts[1]) == ("id", MICE)
    assert (done.accepted, done.refused) == (1, {"noun": 1, "number": 1, "nothing new": 1})
    assert client.asked[0]["model"] == "m" and client.asked[0]["messages"][0]["content"].endswith(TWO.text)


def test_only_the_chosen_are_asked_for_and_an_empty_answer_is_nothing_new():
    client = Client("three little mice")
    done = paraphrase([TWO, MICE], SETTINGS, client, chosen=[False, True])
    assert done.prompts[0] is TWO and done.prompts[1].text == "three little mice" and len(client.asked) == 1
    client.choices = lambda: []
    assert paraphrase([TWO], SETTINGS, client).refused == {"nothing new": 2}


def test_an_endpoint_that_fails_is_a_user_error_that_ends_the_work_at_once():
    def refuse():
        raise NoAnswer("no connection", "refused")

    client = Client()
    client.choices = refuse
    with pytest.raises(UserError, match="localhost:1/v1 did not answer for model m"):
        paraphrase([TWO] * 50, SETTINGS, client)


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.delitem(sys.modules, "thinkdraw.runtime.http")
    with pytest.raises(UserError, match=r"pip install 'thinkdraw\[remote\]'"):
        paraphrase([TWO], SETTINGS)


def test_the_client_reaches_a_local_server():
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            fits = asked[-1]["model"] == "m"
            message = {"role": "assistant", "content": "Three mice in a field"}
            reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
            reply |= {"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
            self.send_response(200 if fits else 404)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(reply if fits else {"error": {"message": "no such model"}}).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = SETTINGS.model_copy(update={"base_url": f"http://127.0.0.1:{server.server_port}/v1"})
        assert paraphrase([MICE], settings).prompts[0].text == "Three mice in a field"
        assert asked[0]["temperature"] == settings.temperature
        with pytest.raises(UserError, match="did not answer for model other"):
            paraphrase([MICE], settings.model_copy(update={"model": "other"}))
        server.shutdown()
