"""`OpenAIJudge` against a server over a tiny model that returns top_logprobs, and against servers that misbehave."""

import math
import random
import re
import time
from itertools import count

import numpy as np
import pytest
import torch
from fastapi.responses import JSONResponse, Response
from tests.judges import helpers_vlm as tiny
from tests.judges.helpers_endpoint import Stub, TinyModel, completion, serve

from thinkdraw.errors import UserError
from thinkdraw.judges import load_judge
from thinkdraw.judges.questioners.vlm import VlmJudge
from thinkdraw.judges.served.openai_judge import OpenAIJudge
from thinkdraw.types import Questioner, Request, Writer

QUESTIONS = ["Is there a cup?", "a?", "two cups", "Is there a red circle in the picture?", "b c d?", "no?"] * 2
HALF = [("Yes", math.log(0.5)), (" no", math.log(0.25)), ("maybe", math.log(0.125))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def local(folder):
    return VlmJudge(folder, device="cpu", max_new_tokens=8)


@pytest.fixture(scope="module")
def tiny_server(folder):
    stub = Stub(TinyModel(folder))
    with serve(stub) as url:
        yield stub, url


@pytest.fixture
def misbehaving():
    """A server that answers the test request properly, and then as `stub.reply` says."""
    stub = Stub(lambda body: completion("Yes", HALF))
    with serve(stub) as url:
        yield stub, url


def judge_at(url, **settings):
    return OpenAIJudge("tiny", url, **{"max_retries": 0, "timeout_s": 20.0, "backoff_s": 0.001, **settings})


# P(yes) from log-probs


def test_p_yes_equals_the_local_one_and_a_word_that_is_not_returned_has_the_most_that_it_can(tiny_server, local):
    stub, url = tiny_server
    pictures = tiny.pictures(12)
    expected = local.answer(pictures, QUESTIONS)
    every = judge_at(url, top_logprobs=1000)  # the whole vocabulary: no spelling is cut off
    assert not every.hard and torch.allclose(every.answer(pictures, QUESTIONS), expected, atol=1e-5)

    few = judge_at(url, top_logprobs=6, max_concurrent=3)
    p = few.answer(pictures, QUESTIONS)
    model, returned = stub.reply, []
    for body in stub.bodies[-12:]:
        top = model(body)["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        returned.append((body["messages"], [(a["token"].strip().lower(), math.exp(a["logprob"])) for a in top]))
    for row, (picture, question) in enumerate(zip(pictures, QUESTIONS)):
        messages = few._question_body(picture.numpy(), question)["messages"]
        top = next(top for sent, top in returned if sent == messages)
        # as much as the least likely that is returned, and no more than these leave
        unseen = min(min(p for _, p in top), 1 - sum(p for _, p in top))
        yes, no = (sum(p for token, p in top if token == word) for word in ("yes", "no"))
        right = (yes or unseen) / ((yes or unseen) + (no or unseen)) if yes or no else math.nan
        assert p[row].item() == pytest.approx(right, abs=1e-5, nan_ok=True)
    assert p.isnan().sum() == few.failures.total() < 12


def test_the_surest_verdicts_are_the_ones_in_which_the_other_word_is_not_among_the_likely_tokens(misbehaving):
    stub, url = misbehaving
    judge, picture = judge_at(url), tiny.pictures(1)
    rest = [("Sure", math.log(0.006)), ("It", math.log(0.004)), ("The", math.log(0.003)), ("Oui", math.log(0.002))]
    for word, p in (("Yes", 0.98 / 0.982), ("No", 0.002 / 0.982)):  # the other has at most 0.002
        stub.reply = lambda body, word=word: completion(word, [(word, math.log(0.98)), *rest])
        assert judge.answer(picture, ["a?"]).item() == pytest.approx(p)
    stub.reply = lambda body: completion("Yes", [("Yes", math.log(0.98)), ("Sure", math.log(0.02))])  # nothing is left
    assert judge.answer(picture, ["a?"]).item() == pytest.approx(1.0, abs=1e-6) and not judge.failures
    stub.reply = lambda body: completion("Sure", rest)
    assert judge.answer(picture, ["a?"]).isnan().all()
    (reason,) = judge.failures
    assert reason == "neither yes nor no among the likely tokens: 'Sure' (1%), 'It' (0%), 'The' (0%)"


def test_spellings_are_summed_and_a_small_mass_is_no_verdict(misbehaving):
    stub, url = misbehaving
    judge = judge_at(url)
    picture = tiny.pictures(1)
    # yes 0.25 + 0.25, no 0.125 + 0.125: 0.5 / 0.75
    stub.reply = lambda body: completion(
        "", [(t, math.log(p)) for t, p in zip(["yes", " Yes", "NO", "no"], [0.25] * 2 + [0.125] * 2)]
    )
    assert judge.answer(picture, ["a?"]).item() == pytest.approx(2 / 3)
    stub.reply = lambda body: completion("", [("The", -1e-9), ("yes", math.log(4e-4)), ("no", math.log(4e-4))])
    assert judge.answer(picture, ["a?"]).isnan().all()
    assert judge_at(url, min_yes_no_mass=1e-4).answer(picture, ["a?"]).item() == pytest.approx(0.5)
    stub.reply = lambda body: completion("", [("yes", math.log(0.9)), ("Yes", math.log(0.1))])
    assert judge.answer(picture, ["a?"]).item() == 1.0  # all that there is says yes


def test_the_request_carries_the_picture_before_the_question_and_greedy_settings(misbehaving):
    stub, url = misbehaving
    judge = judge_at(
        url, question_format="Q: {question}", extra_body={"chat_template_kwargs": {"enable_thinking": False}}
    )
    judge.answer(tiny.pictures(1), ["is {this} a dog?"])
    body = stub.bodies[-1]
    image, text = body["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "Q: is {this} a dog?"}
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert (body["temperature"], body["max_tokens"], body["logprobs"], body["top_logprobs"]) == (0.0, 1, True, 20)


# Mode, fixed by the test request


def test_a_server_that_ignores_logprobs_gives_hard_verdicts_and_is_refused_where_logprobs_are_asked_for(misbehaving):
    stub, url = misbehaving
    stub.reply = lambda body: completion("Yes, it is.")
    judge = judge_at(url)
    assert judge.hard and judge.answer(tiny.pictures(1), ["a?"]).tolist() == [1.0]
    assert "logprobs" not in stub.bodies[-1]
    with pytest.raises(UserError, match="answers without top_logprobs") as caught:
        judge_at(url, mode="logprobs")
    assert "\n" not in str(caught.value)


def test_a_server_that_refuses_the_field_is_asked_for_answers(misbehaving):
    stub, url = misbehaving
    refusal = JSONResponse({"error": {"message": "unknown field logprobs"}}, status_code=400)
    stub.reply = lambda body: refusal if "logprobs" in body else completion("no")
    judge = judge_at(url)
    assert judge.hard and judge.answer(tiny.pictures(1), ["a?"]).tolist() == [0.0]
    with pytest.raises(UserError, match="unknown field logprobs"):
        judge_at(url, mode="logprobs")


def test_answer_mode_does_not_ask_for_logprobs_and_an_answer_that_is_neither_is_no_verdict(misbehaving):
    stub, url = misbehaving
    judge = judge_at(url, mode="answer")
    assert judge.hard and "logprobs" not in stub.bodies[-1]
    answers = iter(["**No**", "I think yes", "Yes!", ""])
    stub.reply = lambda body: completion(next(answers))
    p = torch.cat([judge.answer(tiny.pictures(1), ["a?"]) for _ in range(4)])
    assert p[[0, 2]].tolist() == [0.0, 1.0] and p[[1, 3]].isnan().all()
    assert judge.failures == {"neither yes nor no: 'I think yes'": 1, "empty answer": 1}


def test_auto_says_why_its_verdicts_are_hard(misbehaving):
    stub, url = misbehaving
    stub.reply = lambda body: completion("**Yes**", [("**", math.log(0.9)), ("Yes", math.log(1e-5))])
    with pytest.warns(UserWarning, match=r"verdicts are hard, 1 or 0: .*neither yes nor no but '\*\*' \(90%\)"):
        judge = judge_at(url)
    assert judge.hard and judge.answer(tiny.pictures(1), ["a?"]).tolist() == [1.0]


# Models that think first


THINKS = [
    completion("<think>\nOkay, let me", [("<think>", math.log(0.97)), ("So", math.log(0.02))], "length"),
    completion(None, None, "length", {"reasoning_content": "Okay, let me"}),
    completion("", [("Okay", math.log(0.9)), ("So", math.log(0.1))], "length", {"reasoning": "Okay, let me"}),
]


@pytest.mark.parametrize("mode", ["auto", "logprobs", "answer"])
@pytest.mark.parametrize("reply", THINKS)
def test_a_model_that_would_never_say_yes_or_no_is_refused_at_the_start_with_what_it_says(misbehaving, reply, mode):
    stub, url = misbehaving
    stub.reply = lambda body: reply if body.get("logprobs") or mode != "logprobs" else completion("Yes")
    with pytest.raises(UserError, match=r"neither yes nor no|without top_logprobs") as caught:
        judge_at(url, mode=mode)
    assert "enable_thinking: false" in str(caught.value) and "\n" not in str(caught.value)
    if mode == "answer":
        assert "Okay, let me" in str(caught.value) and "thoughts that were cut off" in str(caught.value)
        assert "max_answer_tokens=2048" in str(caught.value)


def test_with_room_for_its_thoughts_a_model_that_thinks_gives_verdicts_and_texts_without_them(misbehaving):
    stub, url = misbehaving
    thought = "<think>yes, no, red circle, so\n</think>\n\n"
    stub.reply = lambda body: completion(thought + "No." if body["max_tokens"] > 8 else "<think>yes", finish="length")
    judge = judge_at(url, mode="answer", max_answer_tokens=2048)
    assert judge.answer(tiny.pictures(1), ["a?"]).tolist() == [0.0] and not judge.failures
    stub.reply = lambda body: completion(thought + "Final Score: 4")
    assert judge.write([Request("a")]) == ["Final Score: 4"]
    stub.reply = lambda body: completion("the circle </think> Final Score: 3")  # the template began the thought
    assert judge.write([Request("a")]) == ["Final Score: 3"]


def test_what_only_writes_needs_no_yes_or_no(misbehaving):
    stub, url = misbehaving
    stub.reply = lambda body: completion("A picture.")
    judge = judge_at(url, mode="write")
    assert judge.write([Request("a")]) == ["A picture."]
    with pytest.raises(UserError, match="mode=write answers no questions"):
        judge.answer(tiny.pictures(1), ["a?"])


# What a reply may look like


@pytest.mark.parametrize(
    ("reply", "text", "reason"),
    [
        (completion([{"type": "text", "text": "A "}, {"type": "text", "text": "cat."}]), "A cat.", None),
        (completion([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "A cat."}]), "A cat.", None),
        (completion([{"type": "thinking", "thinking": "hm"}]), None, "thoughts without an answer"),
        # 4.5, perhaps: the last word of a cut answer is not read
        (completion("Final Score: 4", finish="length"), "Final Score:", None),
        (completion("Score", finish="length"), None, "cut off before an answer"),
        (completion(None, finish="length"), None, "cut off before an answer"),
        (completion(None, message={"refusal": "I will not."}), None, "the model refused"),
        (completion("A ca", finish="content_filter"), None, "withheld by a content filter"),
        (completion("A cat.", model="tiny", usage=None, system_fingerprint=7), "A cat.", None),
    ],
)
def test_parts_are_joined_and_what_is_no_whole_answer_is_none(misbehaving, reply, text, reason):
    stub, url = misbehaving
    judge = judge_at(url)
    stub.reply = lambda body: reply
    assert judge.write([Request("a")]) == [text] and judge.failures == ({reason: 1} if reason else {})


def test_an_error_in_place_of_a_reply_is_shown_in_the_servers_words_and_counted_with_them(misbehaving):
    stub, url = misbehaving
    judge = judge_at(url)
    stub.reply = lambda body: {"error": {"message": "quota of the month is used up", "code": 403}}
    assert judge.answer(tiny.pictures(2), ["a?", "b?"]).isnan().all()
    assert judge.failures == {"an error in place of a reply: quota of the month is used up": 2}
    stub.reply = lambda body: completion("Yes")  # in the middle of a run without log-probs
    assert judge.answer(tiny.pictures(1), ["a?"]).isnan().all() and judge.failures["no log-probabilities"] == 1


# What servers call things


def refuses(*refusals):
    """A server that refuses requests with a field: (field, what it says, value that is allowed)."""

    def reply(body):
        for field, said, *allowed in refusals:
            if field in body and body[field] not in allowed:
                return JSONResponse(said, status_code=400)
        return completion("Yes.", HALF if body.get("logprobs") else None)

    return reply


OPENAI = (
    ("max_tokens", {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
                              "'max_completion_tokens' instead.", "param": "max_tokens"}}),
    ("temperature", {"error": {"message": "Unsupported value: does not support 0.0 with this model.", "param": "temperature"}}, 1),
)  # fmt: skip
STRICT = (("max_tokens", {"detail": [{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted"}]}),)


def test_a_refused_name_is_replaced_and_a_refused_temperature_left_out_and_said(misbehaving):
    stub, url = misbehaving
    stub.reply = refuses(*OPENAI)
    with pytest.warns(UserWarning, match="refuses temperature .*requests are sent without it"):
        judge = judge_at(url)
    assert judge.answer(tiny.pictures(1), ["a?"]).item() == pytest.approx(2 / 3) and not judge.failures
    assert stub.bodies[-1]["max_completion_tokens"] == 1 and not {"max_tokens", "temperature"} & stub.bodies[-1].keys()
    assert judge.revision.endswith("logprobs without temperature")
    asked = len(stub.bodies)
    judge.answer(tiny.pictures(1), ["a?"])
    assert len(stub.bodies) == asked + 1  # learned once
    stub.reply = refuses(*STRICT)
    judge_at(url)
    assert "max_completion_tokens" in stub.bodies[-1]


def test_a_users_fields_are_sent_as_they_are_and_null_takes_one_out(misbehaving):
    stub, url = misbehaving
    stub.reply = refuses(*OPENAI)
    judge_at(url, mode="answer", extra_body={"max_completion_tokens": 2000, "temperature": 1})
    assert (stub.bodies[-1]["max_completion_tokens"], stub.bodies[-1]["temperature"]) == (2000, 1)
    judge_at(url, mode="answer", extra_body={"max_tokens": None, "temperature": None, "seed": 1})
    assert stub.bodies[-1].keys() == {"model", "messages", "seed"}
    with pytest.raises(UserError, match=r"does not support 0\.0"):
        judge_at(url, mode="answer", extra_body={"temperature": 0.5})


def test_a_number_that_is_too_large_is_no_other_name(misbehaving):
    stub, url = misbehaving
    said = {"error": {"message": "max_tokens is too large: 8. This model supports at most 4 completion tokens."}}
    stub.reply = lambda body: JSONResponse(said, status_code=400)
    with pytest.raises(UserError, match="max_tokens is too large: 8"):
        judge_at(url, mode="answer")
    assert all("max_completion_tokens" not in body for body in stub.bodies)


def test_an_orm_question_is_not_told_twice_how_to_answer(misbehaving):
    stub, url = misbehaving
    judge = judge_at(url)
    for question, added in (
        ("Is it? Please answer yes or no without explanation.", ""),
        ("Is it?", " Answer yes or no."),
        ("Does a sign ask to answer yes or no in it?", " Answer yes or no."),
    ):
        judge.answer(tiny.pictures(1), [question])
        assert stub.bodies[-1]["messages"][0]["content"][1]["text"] == question + added


# What is wrong at the start


def test_what_is_wrong_with_the_server_is_one_line_at_construction(misbehaving, monkeypatch):
    stub, url = misbehaving
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")

    def refuse(status, text):
        stub.reply = lambda body: JSONResponse({"error": {"message": text}}, status_code=status)

    refuse(401, "expired: sk-secret")
    refusal = r"refuses the key \(HTTP 401: .*expired: \*\*\*.*a valid key into the environment variable JUDGE_KEY\."
    with pytest.raises(UserError, match=refusal) as caught:
        judge_at(url, api_key_env="JUDGE_KEY")
    assert "sk-secret" not in str(caught.value) and "\n" not in str(caught.value)
    refuse(403, "no")
    with pytest.raises(UserError, match=r"refuses the key \(HTTP 403.*api_key_env"):
        judge_at(url)
    refuse(404, "no such model")
    with pytest.raises(UserError, match=r"does not serve model=other \(HTTP 404: .*no such model.*It serves tiny\."):
        OpenAIJudge("other", url, max_retries=0)
    refuse(500, "boom")
    with pytest.raises(UserError, match=r"does not answer a question about a small picture \(HTTP 500: .*boom"):
        judge_at(url)
    stub.reply = lambda body: completion("", choices=[])
    with pytest.raises(UserError, match="a reply without an answer: its list of choices is empty"):
        judge_at(url)
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/v1 does not answer \(no connection.*Start the server"):
        judge_at("http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="mode=soft: unknown"):
        judge_at(url, mode="soft")


def test_the_key_is_sent_only_where_its_variable_is_named(misbehaving, monkeypatch):
    stub, url = misbehaving
    monkeypatch.setenv("OPENAI_API_KEY", "sk-mine")
    monkeypatch.setenv("JUDGE_KEY", "sk-judge")
    judge_at(url)
    assert "sk-mine" not in str(stub.headers[-1])
    judge = judge_at(url, api_key_env="JUDGE_KEY")
    assert stub.headers[-1]["authorization"] == "Bearer sk-judge"
    assert "sk-judge" not in judge.revision + repr(judge) + repr(vars(judge))


# Faults on the way


def test_rows_keep_their_own_verdicts_whatever_the_order_of_the_replies(misbehaving):
    stub, url = misbehaving
    judge = judge_at(url, mode="answer", max_concurrent=8)
    wait = random.Random(0)

    def slow(body):
        time.sleep(wait.uniform(0, 0.05))
        return completion("yes" if "even" in body["messages"][0]["content"][1]["text"] else "no")

    stub.reply = slow
    questions = ["even?" if i % 2 == 0 else "odd?" for i in range(32)]
    assert judge.answer(tiny.pictures(32), questions).tolist() == [float(i % 2 == 0) for i in range(32)]


FAULTS = {
    "HTTP 500": lambda body: JSONResponse({"error": {"message": "boom"}}, status_code=500),
    "HTTP 429": lambda body: JSONResponse({"error": {"message": "slow"}}, status_code=429, headers={"retry-after": "0"}),
    "truncated": lambda body: Response('{"choices": [{"message": {"con', media_type="application/json"),
    "cut off": lambda body: Response('{"choices": [', headers={"content-length": "1000"}),
    "page": lambda body: Response("<html>gateway</html>", media_type="text/html"),
    "null": lambda body: Response("null", media_type="application/json"),
    "no choices": lambda body: completion("Yes", HALF, choices=None),
    "list": lambda body: completion(["Yes"], HALF),  # type: ignore[arg-type]
    "nan": lambda body: Response('{"choices": [{"message": {"content": "Yes"}, "logprobs": {"content": [{"top_logprobs": '
                                 '[{"token": "Yes", "logprob": NaN}, {"token": "no", "logprob": -1}]}]}}], "model": "tiny"}'),
    "above 0": lambda body: completion("Yes", [("Yes", 800.0), ("no", -1.0)]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_that_passes_is_retried_and_one_that_stays_is_no_verdict(misbehaving, fault):
    stub, url = misbehaving
    judge = judge_at(url, max_retries=2)
    calls = count()
    stub.reply = lambda body: FAULTS[fault](body) if next(calls) < 2 else completion("Yes", HALF)
    assert judge.answer(tiny.pictures(1), ["a?"]).item() == pytest.approx(2 / 3) and not judge.failures  # 0.5 / 0.75
    stub.reply = FAULTS[fault]
    assert judge.answer(tiny.pictures(2), ["a?", "b?"]).isnan().all() and judge.failures.total() == 2
    assert judge.write([Request("a?")]) == [None]


def test_a_fault_of_the_request_is_not_retried(misbehaving):
    stub, url = misbehaving
    judge = judge_at(url, max_retries=3)
    stub.reply = lambda body: JSONResponse({"error": {"message": "too long"}}, status_code=400)
    before = len(stub.bodies)
    assert judge.answer(tiny.pictures(1), ["a?"]).isnan().all() and judge.failures == {"HTTP 400: too long": 1}
    assert len(stub.bodies) == before + 1


def test_a_stall_and_a_dead_server_are_no_verdict(folder):
    stub = Stub(lambda body: completion("Yes", HALF))
    with serve(stub) as url:
        judge = judge_at(url, timeout_s=0.2, max_retries=1)
        stub.reply = lambda body: time.sleep(0.6) or completion("Yes", HALF)
        assert judge.answer(tiny.pictures(1), ["a?"]).isnan().all()
    assert judge.answer(tiny.pictures(1), ["a?"]).isnan().all()
    assert judge.failures == {"timeout": 1, "no connection": 1}


def test_with_a_third_of_the_requests_failing_every_verdict_is_right_or_counted(misbehaving):
    stub, url = misbehaving
    judge = judge_at(url, mode="answer", max_retries=1)
    chance = random.Random(0)
    # Drawn beforehand for each question's two tries, since requests come in any order.
    faults = {i: [chance.choice(["HTTP 500", "truncated", "null"]) if chance.random() < 0.3 else None for _ in range(2)]
              for i in range(60)}  # fmt: skip
    unanswered = sum(all(tries) for tries in faults.values())

    def reply(body):
        asked = body["messages"][0]["content"][1]["text"]
        fault = faults[int(re.findall(r"\d+", asked)[0])].pop(0)
        return FAULTS[fault](body) if fault else completion("yes" if "even" in asked else "no")

    stub.reply = reply
    p = judge.answer(tiny.pictures(60), [f"is {i} even?" if i % 2 == 0 else f"is {i} odd?" for i in range(60)])
    right = torch.tensor([float(i % 2 == 0) for i in range(60)])
    assert torch.equal(p[p.isfinite()], right[p.isfinite()])
    # a row fails with 0.3² = 9 %: about 5 of 60
    assert p.isnan().sum() == judge.failures.total() == unanswered and 0 < unanswered < 20


def test_a_reply_of_another_model_is_no_verdict(misbehaving):
    stub, url = misbehaving
    judge = judge_at(url)
    stub.reply = lambda body: completion("Yes", HALF, model="smaller")
    assert judge.answer(tiny.pictures(1), ["a?"]).isnan().all() and judge.failures == {"answered by smaller": 1}


# Writing, names


def test_what_it_writes_is_the_local_models_text_for_any_number_of_pictures(tiny_server, local):
    _, url = tiny_server
    judge = judge_at(url, max_new_tokens=8)
    shown = tuple(tiny.pictures(2).numpy())
    requests = [Request("two cups", shown[:1]), Request("hello"), Request("which?", shown)]
    assert judge.write(requests) == local.write(requests)
    assert isinstance(judge, Questioner) and isinstance(judge, Writer)


def test_an_empty_text_is_no_answer(misbehaving):
    stub, url = misbehaving
    judge = judge_at(url)
    stub.reply = lambda body: completion(" \n")
    assert judge.write([Request("a")]) == [None] and judge.failures == {"empty answer": 1}


def test_the_revision_names_the_model_and_what_the_server_says_and_not_its_address(misbehaving):
    stub, url = misbehaving
    stub.reply = lambda body: completion("Yes", HALF, model="tiny-2", system_fingerprint="fp_1")
    judge = judge_at(url)
    assert (judge.revision, judge.former_revision) == (
        "tiny (tiny-2 fp_1) logprobs", f"{url} tiny (tiny-2 fp_1) logprobs"
    )  # fmt: skip
    assert judge_at(url + "/", mode="answer").revision == "tiny (tiny-2 fp_1) answer"


def test_it_opens_by_name_and_refuses_pictures_in_another_form(misbehaving):
    _, url = misbehaving
    judge = load_judge("openai", model="tiny", base_url=url)
    with pytest.raises(ValueError, match="expected uint8"):
        judge.answer(tiny.pictures(1).float(), ["a"])
    assert judge.answer(tiny.pictures(1)[:0], []).shape == (0,)
    assert np.isfinite(judge.answer(tiny.pictures(1), ["a"]).numpy()).all()
