"""Addresses and keys that cannot be right, waiting before a retry, and the absence of the client."""

import importlib
import sys

import pytest
from fastapi.responses import JSONResponse
from tests.judges.helpers_endpoint import Stub, completion, serve

from thinkdraw.errors import UserError
from thinkdraw.judges.served.endpoint import Endpoint
from thinkdraw.runtime import http
from thinkdraw.runtime.http import NoAnswer

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "a"}]}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("127.0.0.1:8000/v1", "not a web address"),
        ("ftp://host/v1", "not a web address"),
        ("http:///v1", "not a web address"),
        ("https://me:sk-secret@host/v1", "base_url at host holds a user, a password or a query"),
        ("https://host/v1?key=sk-secret", "base_url at host holds a user, a password or a query"),
    ],
)
def test_an_address_that_cannot_be_right_is_refused_without_repeating_a_key(url, message):
    with pytest.raises(UserError, match=message) as caught:
        Endpoint(url)
    assert "sk-secret" not in str(caught.value)


def test_a_key_variable_that_is_not_set_is_refused(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", " ")
    for name in ("JUDGE_KEY", "NO_SUCH_KEY"):
        with pytest.raises(UserError, match=f"api_key_env={name}: that environment variable is not set"):
            Endpoint("http://host/v1", api_key_env=name)


def test_without_the_client_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    for module in ("thinkdraw.judges.served.endpoint", "thinkdraw.runtime.http"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(UserError, match=r"pip install 'thinkdraw\[remote\]'"):
        importlib.import_module("thinkdraw.judges.served.endpoint")
    monkeypatch.undo()


def test_pauses_double_up_to_a_minute_and_are_at_least_what_the_server_asks(monkeypatch):
    pauses = []
    monkeypatch.setattr(http.time, "sleep", pauses.append)
    asked = iter([None, "7", "soon", "500", None])

    def busy(body):
        header = next(asked)
        return JSONResponse({}, status_code=429, headers={"retry-after": header} if header else {})

    with serve(Stub(busy)) as url:
        with pytest.raises(NoAnswer, match="HTTP 429"):
            Endpoint(url, max_retries=4, backoff_s=1.0).ask(BODY)
    # 2^0 · (0.5 to 1); the server's 7; 2^2 · (0.5 to 1); 500 cut to 60; none after the last
    waited = [pause for pause in pauses if pause >= 0.5]  # the server's own thread sleeps for less
    assert len(waited) == 4 and 0.5 <= waited[0] <= 1 and waited[1] == 7 and 2 <= waited[2] <= 4 and waited[3] == 60


def test_the_outcomes_stand_in_the_order_of_the_requests_failures_among_them():
    def reply(body):
        number = int(body["messages"][0]["content"])
        return completion(str(number)) if number % 3 else JSONResponse({}, status_code=400)

    with serve(Stub(reply)) as url:
        bodies = [{**BODY, "messages": [{"role": "user", "content": str(i)}]} for i in range(10)]
        outcomes = Endpoint(url, max_concurrent=4).ask_all([lambda body=body: body for body in bodies])
    texts = [
        outcome.reason if isinstance(outcome, NoAnswer) else outcome.choices[0].message.content for outcome in outcomes
    ]
    assert texts == ["HTTP 400" if i % 3 == 0 else str(i) for i in range(10)]


def test_a_mistake_of_our_own_is_not_taken_for_the_servers():
    def broken():
        raise KeyError("picture")

    with pytest.raises(KeyError):
        Endpoint("http://127.0.0.1:9/v1").ask_all([broken])


def test_what_a_server_lists_is_empty_where_it_does_not_say():
    stub = Stub(lambda body: completion("a"))
    stub.models = ["one", "two"]
    with serve(stub) as url:
        assert Endpoint(url).served_models() == ["one", "two"]
        assert Endpoint(url + "/nowhere").served_models() == []
