"""A teacher behind an endpoint: what it is asked in which words, which key it gets, and what its odd replies come to."""

import asyncio
import json

import pytest
from tests.corpus.helpers import rows_of, settings_of, write_with
from tests.corpus.teacher_stub import GOOD, TeacherStub

from thinkdraw.corpus.sources import Item
from thinkdraw.corpus.teachers.endpoint import EndpointTeacher
from thinkdraw.corpus.teachers.teachers import BusyError, DeclinedError, TeacherRequest
from thinkdraw.corpus.writing import CONFIG, REJECTED_FILE
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt

USAGE = {"prompt_tokens": 3, "completion_tokens": 4}


class Says(TeacherStub):
    """Answers every request with what `says` makes of its body: (status, reply)."""

    def __init__(self, says):
        super().__init__(canned=True)
        self.says = says

    def answer(self, body):
        super().answer(body)
        return self.says(body)


def completion(content, finish="stop", **message):
    choice = {"message": {"content": content} | message, "finish_reason": finish}
    return 200, {"choices": [choice], "usage": USAGE}


def asked(stub, tmp_path, **teacher):
    """The teacher's reply to one prompt."""

    async def ask():
        made = EndpointTeacher(settings_of(tmp_path / "out", stub.url, teacher=teacher).teacher)  # type: ignore[arg-type]
        try:
            return await made.ask(TeacherRequest(Item(0, "a", Prompt("a red circle"), False), None))
        finally:
            await made.close()

    with stub.running():
        return asyncio.run(ask())


@pytest.mark.filterwarnings("ignore:.*refuses")
def test_a_server_of_another_dialect_is_asked_in_its_words(tmp_path):
    def strict(body):
        for field in ("max_tokens", "temperature", "response_format"):
            if field in body:
                return 400, {"error": {"message": f"Unsupported parameter: {field!r} is not supported", "param": field}}
        return completion(json.dumps(GOOD))

    stub = Says(strict)
    assert len(rows_of(write_with(stub_running(stub), tmp_path / "out", source={"kind": "lab", "count": 3}))) == 3
    assert {"max_completion_tokens", "messages", "model", "seed"} == stub.bodies[-1].keys()


def stub_running(stub):
    import threading

    threading.Thread(target=stub.serve, daemon=True).start()
    return stub


def test_a_users_fields_are_sent_and_null_takes_one_out(tmp_path):
    stub = Says(lambda body: completion("{}"))
    asked(stub, tmp_path, extra_body={"seed": None, "chat_template_kwargs": {"enable_thinking": False}})
    assert "seed" not in stub.bodies[0] and stub.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (completion("<think>a circle, so", "length"), "cut off"),
        (completion(json.dumps(GOOD)[:100], "length"), "cut off"),
        (completion(None, "length", reasoning_content="a circle, so"), "cut off"),
        (completion(None, refusal="I will not."), "refusal"),
        (completion("{", "content_filter"), "refusal"),
        (completion([{"type": "text", "text": "no JSON"}]), "not JSON"),
    ],
)
def test_an_answer_that_is_cut_or_refused_is_called_so_and_a_corpus_without_rows_is_no_success(tmp_path, reply, kind):
    stub = stub_running(Says(lambda body: reply))
    with pytest.raises(UserError, match=rf"has no rows: {kind} \(1\)\. The first that was set aside: {kind}: "):
        write_with(stub, tmp_path / "out", source={"kind": "lab", "count": 1}, limits={"attempts": 1})
    rows = [json.loads(line) for line in (tmp_path / "out" / REJECTED_FILE).read_text().splitlines()]
    assert [row["attempts"][0]["kind"] for row in rows] == [kind]


@pytest.mark.parametrize(
    "reply", [completion(json.dumps(GOOD), "length"), completion("<think>\nso {\n</think>\n" + json.dumps(GOOD)),
              completion([{"type": "thinking", "thinking": "so {"}, {"type": "text", "text": json.dumps(GOOD)}])]
)  # fmt: skip
def test_a_whole_answer_is_one_however_it_came(tmp_path, reply):
    stub = stub_running(Says(lambda body: reply))
    assert len(rows_of(write_with(stub, tmp_path / "out", source={"kind": "lab", "count": 1}))) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (200, {"choices": []}, BusyError, "a reply without an answer"),
        (200, {"error": {"message": "overloaded", "code": 529}}, BusyError, "overloaded"),
        (200, {"error": {"message": "too large", "code": 413}}, DeclinedError, "too large"),
        (200, [], BusyError, "unreadable reply"),
        (422, {"detail": [{"loc": ["body", "n"], "msg": "no"}]}, DeclinedError, r"HTTP 422: no \(body\.n\)"),
        (401, {"error": {"message": "no key"}}, UserError, r"HTTP 401: no key\. No key was sent: .*key_env"),
        (301, {}, UserError, "HTTP 301"),
    ],
)
def test_what_cannot_be_used_is_later_never_or_the_users_to_mend(tmp_path, status, body, kind, said):
    with pytest.raises(kind, match=said):
        asked(Says(lambda _: (status, body)), tmp_path)


def test_the_usual_key_goes_to_no_other_address_and_an_echoed_one_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-usual-secret")
    monkeypatch.setenv("MINE", "sk-mine-secret")
    heads = []

    class Echo(Says):
        def answer(self, body):
            return completion(json.dumps(GOOD | {"short_caption": "the key is sk-mine-secret"}))

    stub = Echo(None)
    handler = stub._server.RequestHandlerClass
    post = handler.do_POST
    monkeypatch.setattr(handler, "do_POST", lambda self: heads.append(dict(self.headers)) or post(self))
    stub_running(stub)
    source = {"kind": "lab", "count": 1}
    write_with(stub, tmp_path / "none", source=source)
    assert "usual" not in str(heads)
    out = write_with(stub, tmp_path / "mine", source=source, teacher={"key_env": "MINE"})
    assert heads[-1]["authorization"] == "Bearer sk-mine-secret"
    assert not any(b"sk-mine" in file.read_bytes() for file in out.rglob("*") if file.is_file())


def test_a_few_items_that_are_all_declined_stop_the_run_and_other_settings_may_follow(tmp_path):
    stub = stub_running(Says(lambda body: (400, {"error": {"message": "no such form"}})))
    source = {"kind": "lab", "count": 3}
    with pytest.raises(UserError, match=r"declined all of the first 3 requests \(HTTP 400: no such form\)"):
        write_with(stub, tmp_path / "out", source=source)
    assert not (tmp_path / "out" / CONFIG).exists()
    stub.says = lambda body: completion(json.dumps(GOOD))
    assert len(rows_of(write_with(stub, tmp_path / "out", source=source, teacher={"structured": "none"}))) == 3
