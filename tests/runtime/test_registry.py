import sys

import pytest

from thinkdraw.errors import UserError
from thinkdraw.runtime.registry import find, make

KNOWN = {"text": "builtins:str", "with:colon": "collections:OrderedDict", "fraction": "fractions:Fraction"}


def test_a_name_and_a_dotted_path_lead_to_the_thing_itself():
    assert find("reward", KNOWN, "text") is str
    assert find("judge", KNOWN, "thinkdraw.errors:UserError").__name__ == "UserError"
    assert find("reward", KNOWN, "with:colon").__name__ == "OrderedDict"


def test_settings_are_passed_on():
    assert make("judge", KNOWN, "fraction", {"numerator": 1, "denominator": 2}) == 0.5


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("txt", {}, "unknown judge 'txt': did you mean text"),
        ("zzz", {}, "unknown judge 'zzz': known are fraction, text, with:colon"),
        ("nowhere.at_all:X", {}, "cannot import nowhere"),
        ("thinkdraw.errors:Fractal", {}, r"thinkdraw.errors \(.*errors.py\) has no Fractal"),
        (":Fraction", {}, "importing  raised ValueError: Empty module name"),
        ("fraction", {"sum": 1}, "unexpected keyword argument 'sum'. It takes numerator, denominator"),
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


@pytest.mark.parametrize(
    "name", ["os:system", "builtins:exec", "subprocess:Popen", "runpy:run_path", "antigravity:fly", "os.path:exists"]
)
def test_nothing_of_pythons_own_library_is_called_or_even_imported(name, monkeypatch):
    imported = []
    monkeypatch.setattr("thinkdraw.runtime.registry._import", imported.append)
    with pytest.raises(UserError, match=r"Python's own library.*was not called"):
        find("reward", {}, name)
    assert not imported


@pytest.mark.parametrize(
    ("kind", "name"),
    [("reward", "torch:save"), ("reward", "torch.hub:load"), ("judge", "yaml:Mark"), ("reward", "pydantic:BaseModel"),
     ("benchmark", "numpy:save"), ("policy", "psutil:Popen")],
)  # fmt: skip
def test_what_an_installed_package_has_is_called_only_if_it_is_what_is_asked_for(kind, name):
    with pytest.raises(UserError, match=f"is no {kind} and was not called"):
        make(kind, {}, name, {})


def test_a_function_of_the_library_under_a_users_name_is_still_the_librarys(tmp_path, monkeypatch):
    (tmp_path / "helpful_rewards.py").write_text("from os import system as reward\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path[:])
    with pytest.raises(UserError, match="belongs to Python's own library"):
        find("reward", {}, "helpful_rewards:reward")


def test_a_module_that_ends_the_process_when_imported_is_named(tmp_path, monkeypatch):
    (tmp_path / "ends_it_all.py").write_text("import sys; sys.exit(0)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path[:])
    with pytest.raises(UserError, match="importing ends_it_all raised SystemExit"):
        find("reward", {}, "ends_it_all:reward")
