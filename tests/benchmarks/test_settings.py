import json

import pytest

from thinkdraw.benchmarks.settings import keep_settings
from thinkdraw.errors import UserError


def test_a_setting_that_an_older_version_did_not_write_had_its_default(tmp_path):
    path, default = tmp_path / "settings.json", {"reading": {"ground": "white"}}
    path.write_text(json.dumps({"samples": 4}))
    keep_settings(path, {"samples": 4, "reading": {"ground": "white"}}, since=default)
    with pytest.raises(UserError, match=r"holds an evaluation with reading=.*white.*, not .*black"):
        keep_settings(path, {"samples": 4, "reading": {"ground": "black"}}, since=default)
