import sys

import pytest

from thinkdraw.errors import UserError
from thinkdraw.runtime.registry import find, make

KNOWN = {"text": "builtins:str", "with:colon": "collections:OrderedDict"}


def test_a_name_and_a_dotted_path_lead_to_the_thing_itself():
    assert find("reward", KNOWN, "text") is str and find("reward", KNOWN, "fractions:Fraction").__name__ == "Fraction"
    assert find("reward", KNOWN, "with:colon").__name__ == "OrderedDict"


def test_settings_are_passed_on():
    assert make("judge", KNOWN, "fractions:Fraction", {"numerator": 1, "denominator": 2}) == 0.5


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("txt", {}, "unknown judge 'txt': did you mean text"),
        ("zzz", {}, "unknown judge 'zzz': known are text, with:colon"),
        ("nowhere.at_all:X", {}, "cannot import nowhere"),
        ("fractions:Fractal", {}, r"fractions \(.*fractions.py\) has no Fractal"),
        (":Fraction", {}, "importing  raised ValueError: Empty module name"),
        ("fractions:Fraction", {"sum": 1}, "unexpected keyword argument 'sum'. It takes numerator, denominator"),
    ],
)
def test_what_leads_nowhere_says_why(name, settings, message):
    with pytest.raises(UserError, match=message):
        make("judge", KNOWN, name, settings)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def reward(rollouts): return [", "raised SyntaxError"),
        ("1 / 0", "raised ZeroDivisionError: division by zero"),
        ("import os; os.nothing", "raised AttributeError: module 'os' has no attribute 'nothing'"),
    ],
)
def test_a_module_that_cannot_be_imported_says_what_it_raised(tmp_path, monkeypatch, code, says):
    (tmp_path / "broken_module.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path[:])
    with pytest.raises(UserError, match=says):
        find("reward", {}, "broken_module:reward")
