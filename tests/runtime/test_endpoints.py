import pytest

from thinkdraw.errors import UserError
from thinkdraw.runtime.endpoints import (
    OPENAI,
    TRUSTED_HOSTS,
    check_url,
    is_trusted,
    key_for_url,
    mask_secrets,
    openai_key_for_url,
    read_secret,
    retry_after_s,
)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1/", "https://example.org/v1"])
def test_an_address_stays_as_it_is_but_for_a_slash_at_its_end(url):
    assert check_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "not a web address"),
        ("ftp://example.org", "not a web address"),
        ("http://", "not a web address"),
        ("http://me:secret@example.org/v1", "would end up in logs"),
        ("http://example.org/v1?key=secret", "would end up in logs"),
        ("http://example.org/v1#secret", "would end up in logs"),
        ("ftp://me:secret@example.org/v1", "would end up in logs"),
        ("me:secret@example.org/v1", "not a web address"),
        ("http://me:secret@example.org:port/v1", "no web address"),
        ("http://[secret", "no web address"),
        ("http://exa mple.org", "not a web address"),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_repeating_it(url, message):
    with pytest.raises(UserError, match=message) as caught:
        check_url(url)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("2", 2.0), ("0.25", 0.25), ("", None), ("-1", None), ("inf", None), ("nan", None),
     ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)  # fmt: skip
def test_a_pause_is_seconds_or_nothing(said, seconds):
    assert retry_after_s({"retry-after": said}) == seconds and retry_after_s({}) is None


NEAR, FAR, TLS = "http://127.0.0.1:8000/v1", "http://judge.example.org/v1", "https://judge.example.org/v1"


@pytest.fixture
def keys(monkeypatch):
    for name, value in (
        ("OPENAI_API_KEY", "sk-usual"),
        ("JUDGE_KEY", "sk-judge"),
        ("UNSET", ""),
        ("OPENAI_BASE_URL", ""),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(TRUSTED_HOSTS, raising=False)
    return monkeypatch


def test_a_key_goes_to_the_address_that_it_was_given_for_and_nowhere_else(keys):
    for url in (NEAR, FAR, TLS, "https://api.openai.com.example.org/v1", "https://example.org/api.openai.com"):
        assert openai_key_for_url(url, "key_env", None) == ""
    assert (
        openai_key_for_url(OPENAI, "key_env", None)
        == openai_key_for_url(TLS, "key_env", "OPENAI_API_KEY")
        == "sk-usual"
    )
    keys.setenv("OPENAI_BASE_URL", TLS)
    assert openai_key_for_url(TLS, "key_env", None) == "sk-usual"
    assert key_for_url(NEAR, "key_env", "JUDGE_KEY") == key_for_url(TLS, "key_env", "JUDGE_KEY") == "sk-judge"


def test_no_key_travels_in_clear_beyond_this_machine_unless_the_host_is_trusted(keys):
    for url in (FAR, "http://10.0.0.7:8000", "http://0.0.0.0:8000", "http://api.openai.com/v1"):
        with pytest.raises(UserError, match=f"in clear.*export {TRUSTED_HOSTS}=") as caught:
            key_for_url(url, "key_env", "JUDGE_KEY")
        assert "sk-judge" not in str(caught.value) and not is_trusted(url)
    keys.setenv(TRUSTED_HOSTS, "node7, Judge.Example.org")
    assert key_for_url(FAR, "key_env", "JUDGE_KEY") == "sk-judge" and is_trusted(FAR) and is_trusted("http://node7:1")
    assert not is_trusted("http://node77:1") and not is_trusted("http://node7.example.org")


def test_a_named_key_that_is_not_set_is_refused_but_on_this_machine(keys):
    with pytest.raises(UserError, match="key_env=UNSET: that environment variable is not set"):
        key_for_url(TLS, "key_env", "UNSET")
    assert key_for_url(NEAR, "key_env", "UNSET") == ""


@pytest.mark.parametrize("value", ["sk-proj-secret", "AIzaSyB2secret8fd9s0a7f", "a b", ""])
def test_a_key_in_place_of_its_variables_name_is_refused_and_not_repeated(value):
    with pytest.raises(UserError, match="takes the name of an environment variable") as caught:
        read_secret(value, "api_key_env")
    assert not value or value not in str(caught.value)


@pytest.mark.parametrize("value", ["sk\nx", "sch\u00fcssel", "a\tb"])
def test_a_key_that_no_header_carries_is_refused(monkeypatch, value):
    monkeypatch.setenv("JUDGE_KEY", value)
    with pytest.raises(UserError, match="no HTTP header carries") as caught:
        read_secret("JUDGE_KEY", "api_key_env")
    assert value not in str(caught.value)


def test_addresses_in_texts_lose_their_secrets_and_nothing_else():
    text = "a: 'https://me:pw@h/v1?api_key=sk-1&x=2' b: http://h:8000/v1?x=1 c: mail me@h"
    assert mask_secrets(text) == "a: 'https://***@h/v1?api_key=***&x=2' b: http://h:8000/v1?x=1 c: mail me@h"
