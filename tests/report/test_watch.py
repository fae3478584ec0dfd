"""Signs of hacking on the page, and a page that follows a run."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from thinkdraw.cli import app
from thinkdraw.errors import UserError
from thinkdraw.report import write_report
from thinkdraw.report.watch import watch_run
from thinkdraw.runtime import files
from thinkdraw.runtime.files import has_writer, only_writer
from thinkdraw.runtime.tracking import MetricsLog

RUNS = json.loads((Path(__file__).parents[1] / "recipes/phase/hacking_runs.json").read_text())


def run_of(folder: Path, rows: list[dict]) -> Path:
    log = MetricsLog(folder / "metrics.jsonl")
    for row in rows:
        log.append(row)
    return folder


def page_of(folder: Path) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def test_the_page_of_a_hacked_run_marks_the_curves_that_ring(tmp_path):
    page = page_of(run_of(tmp_path / "hacked", RUNS["hacked"]))
    assert "Since step 10: lab-detector, which is not optimised, fell from 0.579 to 0.533" in page
    assert re.findall(r"<h4>(\w+).*?alarm since step (\d+)", page) == [("Reward", "10"), ("Colours", "13")]
    assert page.count('data-chart="run0-hacking-') == 8 and 'http-equiv="refresh"' not in page


def test_the_page_of_a_healthy_run_says_that_no_alarm_rings_and_when_no_judge_is_held_out(tmp_path):
    page = page_of(run_of(tmp_path / "healthy", RUNS["healthy"]))
    assert "No alarm rings at the last step." in page and "validation.monitors" not in page
    alone = [
        {k: v for k, v in row.items() if not k.startswith("monitor/") and k != "parted"} for row in RUNS["healthy"]
    ]
    page = page_of(run_of(tmp_path / "alone", alone))
    assert "<code>validation.monitors</code>" in page and page.count('data-chart="run0-hacking-') == 7
    page = page_of(run_of(tmp_path / "older", [{"step": 1, "reward_mean": 0.5}]))
    assert "Is the reward being hacked?" not in page


def test_a_run_is_followed_from_before_its_first_row_until_its_last(tmp_path, monkeypatch):
    """The run is played by what happens while the page waits."""
    monkeypatch.setattr(files, "YOUNG_S", 0.0)
    run, page, said, reloads = tmp_path / "run", tmp_path / "page.html", [], []
    log, writer = MetricsLog(run / "metrics.jsonl"), only_writer(run)

    def wait(seconds: float) -> None:
        reloads.append(page.exists() and 'http-equiv="refresh" content="10"' in page.read_text())
        match len(reloads):
            case 1:
                writer.__enter__()
            case 2:
                log.append({"step": 1, "reward_mean": 0.25})
            case 3:
                assert "1 steps" in page.read_text()
                log.append({"step": 2, "reward_mean": 0.5})
            case 5:
                log.append({"step": 3, "reward_mean": 0.75})
                writer.__exit__(None, None, None)

    watch_run(run, page, said.append, wait)
    assert reloads == [False, False, True, True, True]
    assert "3 steps" in page.read_text() and "refresh" not in page.read_text()
    assert [line.partition(":")[0] for line in said] == [
        f"waiting for the first row of a run in {run} (Ctrl-C ends)",
        "waiting for more rows",
        f"no process writes to {run} any more",
    ]


def test_a_folder_that_holds_nothing_and_that_nobody_writes_to_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no run, and no process writes to it"):
        watch_run(tmp_path, tmp_path / "page.html", print, pytest.fail)


def test_a_killed_writer_leaves_a_file_and_no_writer(tmp_path, monkeypatch):
    assert not has_writer(tmp_path)
    with only_writer(tmp_path / "run"):
        assert has_writer(tmp_path / "run")
        monkeypatch.setattr(files, "YOUNG_S", 0.0)
        assert has_writer(tmp_path / "run")
    (tmp_path / ".writer.lock").write_text("process 1 on nowhere")
    assert not has_writer(tmp_path)


@pytest.mark.parametrize("word", ["--watch", "watch=true"])
def test_the_verb_follows_a_run_that_has_ended_and_ends(word, tmp_path):
    result = CliRunner().invoke(app, ["report", str(run_of(tmp_path / "run", RUNS["hacked"])), word])
    assert result.exit_code == 0, result.output
    assert "is the last page" in result.output and (tmp_path / "run/report.html").exists()
