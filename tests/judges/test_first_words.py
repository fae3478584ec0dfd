"""Probabilities of first words: from a local model's logits, and as far as an endpoint's top_logprobs show them."""

import math
from types import SimpleNamespace

import pytest
import torch
from tests.judges import helpers_vlm as tiny

from thinkdraw.benchmarks.geneval2.benchmark import WordJudge
from thinkdraw.judges.questioners.vlm_words import VlmWords
from thinkdraw.judges.served.openai_words import OpenAIWords


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return VlmWords(str(tiny.qwen(tmp_path_factory.mktemp("words") / "qwen")), device="cpu", max_rows=2)


def first_step(judge, picture, text):
    """Softmax over the vocabulary at the first place of the reply, from a plain forward."""
    talk = judge._conversation(tiny_request(picture, text))
    inputs = judge.processor.apply_chat_template(
        [talk], add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    with torch.no_grad():
        return judge.model(**inputs).logits[0, -1].softmax(-1)


def tiny_request(picture, text):
    from thinkdraw.types import Request

    return Request(text, (picture.numpy(),))


def test_first_tokens_are_added_up_with_repetitions(judge):
    pictures = tiny.pictures(3)
    texts = ["How many cups? Answer in one word.", "Is there a red circle in the picture? Answer in one word.", "two"]
    strings = [("two", "Two", " two", " Two", "2", " 2"), ("Yes", "yes", " yes", " Yes"), ("yes", "yes", "no")]
    found = judge.first_words(pictures, texts, strings)
    encode = judge.processor.tokenizer.encode
    for row in range(3):
        p = first_step(judge, pictures[row], texts[row])
        ids = [encode(text, add_special_tokens=False)[0] for text in strings[row]]
        assert float(found[row]) == pytest.approx(sum(float(p[i]) for i in ids), abs=1e-5)
    # a blank before a digit is a token of its own here, as in Qwen's vocabulary, and so adds P(blank)
    assert encode(" 2", add_special_tokens=False)[0] == encode(" ", add_special_tokens=False)[0]
    assert isinstance(judge, WordJudge) and judge.name == "vlm-words"


def reply(**probabilities):
    top = [SimpleNamespace(token=t.replace("_", " "), logprob=math.log(p)) for t, p in probabilities.items()]
    logprobs = SimpleNamespace(content=[SimpleNamespace(top_logprobs=top)])
    return SimpleNamespace(choices=[SimpleNamespace(logprobs=logprobs)])


def served(*replies):
    judge = object.__new__(OpenAIWords)
    judge.top_logprobs, judge.model, judge.extra_body = 20, "m", {}
    judge.bodies = []
    judge._send_all = lambda bodies: judge.bodies.extend(body() for body in bodies) or list(replies)
    return judge


def test_an_endpoint_shows_only_its_likely_tokens():
    judge = served(reply(two=0.5, _two=0.25, Yes=0.1), None, SimpleNamespace(choices=[SimpleNamespace(logprobs=None)]))
    strings = [("two", "Two", " two", " Two", "2", " 2")] * 3
    found = judge.first_words(tiny.pictures(3), ["How many? Answer in one word."] * 3, strings)
    assert found[0] == pytest.approx(0.75) and found[1:].isnan().all()
    body = judge.bodies[0]
    assert (body["max_tokens"], body["top_logprobs"], body["logprobs"]) == (1, 20, True)
    assert body["messages"][0]["content"][1]["text"] == "How many? Answer in one word."
