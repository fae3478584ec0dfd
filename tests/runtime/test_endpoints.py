import pytest

from thinkdraw.errors import UserError
from thinkdraw.runtime.endpoints import checked_url, retry_after_s


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/v1/", "https://example.org/v1"])
def test_an_address_stays_as_it_is_but_for_a_slash_at_its_end(url):
    assert checked_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "not a web address"),
        ("ftp://example.org", "not a web address"),
        ("http://", "not a web address"),
        ("http://me:secret@example.org/v1", "would end up in logs"),
        ("http://example.org/v1?key=secret", "would end up in logs"),
    ],
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused_without_repeating_it(url, message):
    with pytest.raises(UserError, match=message) as caught:
        checked_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("2", 2.0), ("0.25", 0.25), ("", None), ("-1", None), ("inf", None), ("nan", None),
     ("Wed, 21 Oct 2026 07:28:00 GMT", None)],
)  # fmt: skip
def test_a_pause_is_seconds_or_nothing(said, seconds):
    assert retry_after_s({"retry-after": said}) == seconds and retry_after_s({}) is None
