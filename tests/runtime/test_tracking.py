import json
import math
import os
import platform

import numpy as np
import pytest
import torch

from thinkdraw.errors import UserError
from thinkdraw.runtime.tracking import MetricsLog, PeakMemory, environment


def test_rows_come_back_as_they_were_appended(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.append({"step": 1, "loss": torch.tensor(0.5), "note": "×"})
    log.append({"step": 2, "loss": np.float32(0.25), "by_reward": {"clip": [1, 2.5]}})
    assert MetricsLog.read(log.path) == [
        {"step": 1, "loss": 0.5, "note": "×"},
        {"step": 2, "loss": 0.25, "by_reward": {"clip": [1, 2.5]}},
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor(math.nan), [1.0, -math.inf]])
def test_a_value_that_is_not_finite_is_refused_by_name_and_nothing_is_written(tmp_path, value):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match=r"metric loss\.kl=.*allow_nan"):
        log.append({"step": 1, "loss": {"kl": value}})
    assert MetricsLog.read(log.path) == []


def test_allowed_nan_is_stored_as_null(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", allow_nan={"clip"})
    log.append({"step": 1, "score": {"clip": math.nan}, "clip": math.inf})
    assert MetricsLog.read(log.path) == [{"step": 1, "score": {"clip": None}, "clip": None}]


def test_a_torn_last_line_is_ignored_and_the_next_row_does_not_run_into_it(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"step": 1})
    with log.path.open("a") as file:
        file.write('{"step": 2, "lo')
    assert MetricsLog.read(log.path) == [{"step": 1}]
    log.append({"step": 2})
    assert MetricsLog.read(log.path) == [{"step": 1}, {"step": 2}]
    assert log.path.read_text().count("\n") == 2


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nwhat\n{"step": 3}\n')
    with pytest.raises(UserError, match="line 2 is not JSON"):
        MetricsLog.read(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("line", [0, 1])
def test_a_changed_number_is_found_in_the_last_line_too(tmp_path, line):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append({"step": 1, "loss": 0.25})
    log.append({"step": 2, "loss": 0.25})
    lines = log.path.read_text().splitlines()
    lines[line] = lines[line].replace("0.25", "0.75")
    log.path.write_text("\n".join(lines))  # the last newline is lost as well
    with pytest.raises(UserError, match=f"line {line + 1} is not JSON as it was written .its values are not those"):
        log.read(log.path)


def test_a_log_from_before_there_were_digests_is_read_and_goes_on(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.path.write_text('{"step": 1}\n')
    log.append({"step": 2})
    assert MetricsLog.read(log.path) == [{"step": 1}, {"step": 2}]


def test_truncating_drops_later_steps_and_keeps_rows_without_a_step(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for row in ({"event": "start"}, {"step": 1}, {"step": 2}, {"step": 3}):
        log.append(row)
    log.truncate_after(2)
    assert MetricsLog.read(log.path) == [{"event": "start"}, {"step": 1}, {"step": 2}]


def test_a_log_that_was_never_written_has_no_rows(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.truncate_after(5)
    assert MetricsLog.read(log.path) == [] and not log.path.exists()


def test_environment_is_json_and_names_neither_host_nor_user_nor_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    facts = environment()
    text = json.dumps(facts)
    assert facts["versions"]["torch"] == torch.__version__ and facts["ram_gb"] > 0 and facts["cores"] >= 1
    assert facts["git_commit"] is None
    assert str(tmp_path) not in text and os.path.expanduser("~") + "/" not in text
    if len(platform.node()) > 5:
        assert platform.node() not in text


def test_peak_memory_counts_an_array_that_is_gone():
    memory = PeakMemory()
    before = memory.peak_gb()
    array = np.ones(int(memory.peak_gb() * 1e9 / 8) + 25_000_000)
    del array
    assert memory.peak_gb() >= before + 0.1
    assert 0 < memory.current_gb() <= memory.peak_gb()


def test_rows_that_stand_there_twice_are_named(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 2):
        log.append({"step": step})
    assert len(log.read(log.path)) == 3
    log.path.write_text(2 * log.path.read_text())
    with pytest.raises(UserError, match=r"line 4 .*step 1 after step 2"):
        log.read(log.path)
