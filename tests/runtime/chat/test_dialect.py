import warnings

import pytest

from thinkdraw.runtime.chat.dialect import Dialect, merge_fields
from thinkdraw.runtime.http import NoAnswer

SENT = {"model": "m", "max_tokens": 8, "temperature": 0.0, "seed": 1}


def refused(said, status=400):
    return NoAnswer(f"HTTP {status}", said, status)


@pytest.mark.parametrize(
    ("said", "put"),
    [
        ("'max_tokens' is not supported. Use 'max_completion_tokens'.", {"max_completion_tokens": 8, "temperature": 0.0, "seed": 1}),
        ("Extra inputs are not permitted (body.max_tokens)", {"max_completion_tokens": 8, "temperature": 0.0, "seed": 1}),
        ("temperature must be above 0", {"max_tokens": 8, "seed": 1}),
        ("unknown fields: seed, temperature", {"max_tokens": 8}),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*refuses")
def test_a_refused_field_has_its_other_name_or_is_left_out(said, put):
    dialect = Dialect("here")
    assert dialect.learn(SENT, refused(said)) and dialect.translate(SENT) == {"model": "m"} | put
    assert not dialect.learn(dialect.translate(SENT), refused(said))  # once only, so that asking ends


@pytest.mark.parametrize(
    "failure",
    [
        refused("max_tokens is too large: 8 > 4"), refused("This model's maximum context length is 10 tokens"),
        refused("no such model: temperature", 404), refused("max_tokens_to_sample is unknown"), refused("timeout", 504),
    ],
)  # fmt: skip
def test_what_is_refused_for_another_reason_changes_nothing(failure):
    dialect = Dialect("here")
    assert not dialect.learn(SENT, failure) and dialect.translate(SENT) == SENT


def test_what_the_user_set_is_not_changed():
    dialect = Dialect("here", {"temperature": 0.0})
    assert not dialect.learn(SENT, refused("temperature is not supported")) and not dialect.dropped_fields


def test_another_thread_that_learned_first_is_believed_and_it_is_said_once():
    dialect = Dialect("here")
    with pytest.warns(UserWarning, match=r"here refuses temperature \(no temperature\): requests are sent without it"):
        assert dialect.learn(SENT, refused("no temperature"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dialect.learn(SENT, refused("no temperature"))  # sent before the first refusal came
    assert dialect.dropped_fields == ["temperature"]


def test_null_takes_a_field_out_and_one_of_two_names_replaces_the_other():
    assert merge_fields(SENT, {"temperature": None, "seed": None}) == {"model": "m", "max_tokens": 8}
    assert merge_fields(SENT, {"max_completion_tokens": 9})["max_completion_tokens"] == 9
    assert "max_tokens" not in merge_fields(SENT, {"max_completion_tokens": 9})
