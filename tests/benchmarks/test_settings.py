import json

import pytest

from thinkdraw.benchmarks.settings import keep_settings
from thinkdraw.errors import UserError


def test_a_setting_that_an_older_version_did_not_write_had_its_default(tmp_path):
    path, default = tmp_path / "settings.json", {"reading": {"ground": "white"}}
    path.write_text(json.dumps({"samples": 4}))
    keep_settings(path, {"samples": 4, "reading": {"ground": "white"}}, since=default)
    with pytest.raises(
        UserError, match="holds an evaluation with reading={'ground': 'white'}, not {'ground': 'black'}"
    ):
        keep_settings(path, {"samples": 4, "reading": {"ground": "black"}}, since=default)


def test_settings_that_are_no_object_are_damaged(tmp_path):
    path = tmp_path / "settings.json"
    path.write_text("3")
    with pytest.raises(UserError, match="is damaged"):
        keep_settings(path, {"samples": 4})
