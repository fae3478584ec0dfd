import json

import pytest

from thinkdraw.benchmarks.settings import write_or_check_settings
from thinkdraw.errors import UserError


def test_a_setting_that_an_older_version_did_not_write_had_its_default(tmp_path):
    path, default = tmp_path / "settings.json", {"reading": {"ground": "white"}}
    path.write_text(json.dumps({"samples": 4}))
    write_or_check_settings(path, {"samples": 4, "reading": {"ground": "white"}}, since=default)
    with pytest.raises(UserError, match=r"holds an evaluation with reading=.*white.*, not .*black"):
        write_or_check_settings(path, {"samples": 4, "reading": {"ground": "black"}}, since=default)


def test_nobody_is_held_to_settings_under_which_nothing_was_made(tmp_path):
    path, rows = tmp_path / "settings.json", tmp_path / "results.jsonl"
    for samples in (4, 2):
        write_or_check_settings(path, {"samples": samples}, rows=rows)
    rows.write_text("{}\n")
    write_or_check_settings(path, {"samples": 2}, rows=rows)
    with pytest.raises(UserError, match="samples=2, not 4"):
        write_or_check_settings(path, {"samples": 4}, rows=rows)
