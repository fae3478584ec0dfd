import json

import pytest

from thinkdraw.errors import UserError
from thinkdraw.runtime.formats.sealed import (
    SEAL,
    read_sealed,
    seal,
    seal_line,
    unseal,
    unseal_line,
    write_sealed,
)

ROW = {"step": 3, "loss": 0.1, "text": "é\u2028", "parts": {"b": [1, None], "a": True}}


def test_what_was_sealed_comes_back_as_it_was():
    assert unseal(seal(ROW)) == ROW == unseal_line(seal_line(ROW))
    assert list(unseal(seal(ROW))) == list(ROW)


def test_the_digest_is_of_the_values_and_not_of_how_they_are_written():
    again = json.loads(json.dumps(dict(reversed(seal(ROW).items())), indent=3))
    assert unseal(again) == ROW


@pytest.mark.parametrize(
    "change", [{"step": 4}, {"loss": 0.10000000000000002}, {"more": None}, {"parts": {}}, {SEAL: None}]
)
def test_another_value_is_refused(change):
    with pytest.raises(ValueError, match="not those that were written"):
        unseal({**seal(ROW), **change})


def test_what_was_written_before_there_were_digests_is_taken_as_it_is():
    assert unseal(ROW) == ROW


def test_a_file_is_named_with_the_way_out(tmp_path):
    path = tmp_path / "summary.json"
    write_sealed(path, ROW)
    assert read_sealed(path, "Evaluate again.") == ROW
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(UserError, match=r"summary.json cannot be used: its values .* Evaluate again."):
        read_sealed(path, "Evaluate again.")


@pytest.mark.parametrize("line", ["[1]", "3", '{"a": NaN}', '{"a": 1', ""])
def test_a_line_that_holds_no_object_is_refused(line):
    with pytest.raises(ValueError):
        unseal_line(line)
