import json

import pytest

from thinkdraw.runtime.chat.completion import read_completion
from thinkdraw.runtime.http import NoAnswer


def body(message=None, finish="stop", **more):
    choice = {"message": message or {"content": "Yes."}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "model": "m", **more}).encode()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"<html>gateway</html>", "unreadable reply: <html>gateway</html>"),
        (b'data: {"choices": []}', "unreadable reply: data:"),
        (b"null", "unreadable reply"),
        (b"[1]", "unreadable reply"),
        (b"[" * 100_000, "unreadable reply"),
        (b"{}", "unreadable reply: choices: Field required"),
        (b'{"choices": []}', "a reply without an answer"),
        (b'{"choices": null}', "unreadable reply: choices"),
        (body({"content": ["Yes"]}), r"unreadable reply: choices\.0\.message\.content"),
        (b'{"error": "overloaded", "choices": []}', "an error in place of a reply: overloaded"),
        (b'{"error": {"message": "slow down", "code": 429}}', "an error in place of a reply: slow down"),
    ],
)
def test_a_body_that_is_no_completion_says_what_it_is(reply, message):
    with pytest.raises(NoAnswer, match=message) as caught:
        read_completion(reply)
    assert caught.value.status == (429 if b"429" in reply else 200) and len(str(caught.value)) < 400


def test_what_is_odd_beside_the_answer_does_not_spoil_it():
    usage = {"prompt_tokens": float("inf"), "completion_tokens": "7"}
    reply = read_completion(body(usage=usage, model=None, system_fingerprint=3, extra=[1]))
    assert (reply.text, reply.model, reply.usage.prompt_tokens, reply.usage.completion_tokens) == ("Yes.", "", 0, 0)
    assert read_completion(body({"content": "a\ud800b"})).text == "a\0b"
    assert read_completion(b"\xef\xbb\xbf" + body()).text == "Yes."


@pytest.mark.parametrize(
    ("message", "finish", "lack"),
    [
        ({"content": "Yes."}, "length", ""),
        ({"content": None}, "stop", "empty answer"),
        ({"content": None, "tool_calls": []}, "tool_calls", "empty answer"),
        ({"content": ""}, "MAX_TOKENS", "cut off before an answer"),
        ({"content": "<think>hm"}, "length", "thoughts that were cut off before an answer"),
        ({"content": None, "reasoning_content": "hm"}, "stop", "thoughts without an answer"),
        ({"content": "", "reasoning": "hm"}, "length", "thoughts that were cut off before an answer"),
        ({"content": "No.", "refusal": "I cannot"}, "stop", "the model refused"),
        ({"content": "A ca"}, "content_filter", "withheld by a content filter"),
    ],
)
def test_a_reply_without_an_answer_says_why(message, finish, lack):
    assert read_completion(body(message, finish)).lack == lack
