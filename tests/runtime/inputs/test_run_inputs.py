"""A run that goes on is held to what it read; one that has made nothing yet is not."""

import pytest

from thinkdraw.errors import HeldError, UserError
from thinkdraw.runtime.formats.sealed import read_sealed
from thinkdraw.runtime.inputs.run_inputs import INPUTS, Input, Inputs


def noted(folder, changed="refuse", **contents):
    inputs = Inputs(folder, changed)
    for setting, content in contents.items():
        inputs.note(setting, Input.of(f"{setting}.txt", content, len(content)))
    return inputs


def test_a_changed_input_is_named_with_the_way_out_and_nothing_is_written(tmp_path):
    first = noted(tmp_path, a=["x", "y"], b=["z"])
    assert first.hold(0) == []
    first.write()
    before = (tmp_path / INPUTS).read_text()
    for content, why in ((["x", "Y"], "other content under the same name"), (["x"], "2 rows then, 1 now")):
        with pytest.raises(HeldError, match=rf"step 3, and a=a.txt has changed \({why}\).*changed_inputs=take"):
            noted(tmp_path, a=content, b=["z"]).hold(3)
    assert (tmp_path / INPUTS).read_text() == before
    assert noted(tmp_path, a=["x", "y"], b=["z"]).hold(3) == []


def test_what_is_taken_up_is_said_and_noted_with_the_step(tmp_path):
    noted(tmp_path, a=["x"], b=["z"]).write()
    second = noted(tmp_path, "take", a=["X"], b=["z"])
    assert ["a=a.txt has changed" in line and "from step 3 on" in line for line in second.hold(3)] == [True]
    second.write()
    assert {name: row["since"] for name, row in read_sealed(tmp_path / INPUTS, "").items()} == {"a": 3, "b": 0}
    third = noted(tmp_path, a=["X"], b=["z"])
    assert third.hold(5) == []
    third.write()
    assert read_sealed(tmp_path / INPUTS, "")["a"]["since"] == 3


def test_nothing_holds_a_run_that_took_no_step(tmp_path):
    noted(tmp_path, a=["x"], gone=["z"]).write()
    taken_over = noted(tmp_path, a=["other"])
    assert len(taken_over.hold(0)) == 1
    taken_over.write()
    assert read_sealed(tmp_path / INPUTS, "").keys() == {"a"}


def test_what_is_read_later_is_held_to_its_note_too(tmp_path):
    noted(tmp_path, a=["x"], later=["z"]).write()
    second = noted(tmp_path, a=["x"])
    second.hold(3)
    second.write()
    second.note("later", Input.of("later.txt", ["other"]))
    with pytest.raises(HeldError, match=r"later=later\.txt"):
        second.hold(3)


def test_a_run_of_before_has_no_note_and_a_damaged_one_says_so(tmp_path):
    assert noted(tmp_path, a=["x"]).hold(7) == []
    for damaged in ("{", "[]", '{"a": 1}', '{"a": {"other": 1}}'):
        (tmp_path / INPUTS).write_text(damaged)
        with pytest.raises(UserError, match=r"inputs\.json (cannot be read|holds)"):
            noted(tmp_path, a=["x"]).hold(7)
