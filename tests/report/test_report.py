import html
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from tests.report.conftest import (
    HOSTILE,
    grpo_rows,
    picture,
    sft_rows,
    write_eval,
    write_jsonl,
    write_rollouts,
    write_run,
)

from thinkdraw.errors import UserError
from thinkdraw.report import write_report
from thinkdraw.report.collect import MAX_INSPECTED_STEPS


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text of each script."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag):
        self.inside = ""


def page_of(folder, tmp_path) -> str:
    return write_report(folder, tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    without_code = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", without_code)))


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    return json.loads(found[1])


def test_the_report_is_written_into_the_folder_by_default(quickstart, tmp_path):
    folder = shutil.copytree(quickstart / "sft", tmp_path / "sft")
    assert write_report(folder) == folder / "report.html"


def test_the_headline_says_the_result_in_one_sentence(quickstart, tmp_path):
    page = page_of(quickstart, tmp_path)
    assert "<h1>RL: 62 % of test prompts drawn right, 9.1 points more than SFT</h1>" in page
    assert "95 % intervals: score 59 to 65 %, difference 6.0 to 12.3 points." in text_of(page)


def test_a_difference_whose_interval_holds_zero_is_called_unclear(quickstart, tmp_path):
    folder = shutil.copytree(quickstart, tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    summary["difference"]["rl-sft"] = {"value": 0.01, "low": -0.02, "high": 0.04}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "drawn right, no clear difference to SFT</h1>" in page_of(folder, tmp_path)


def test_a_loss_and_the_score_of_a_published_benchmark_have_their_own_words(quickstart, tmp_path):
    folder = shutil.copytree(quickstart, tmp_path / "run")
    summary = json.loads((folder / "summary.json").read_text())
    summary["difference"]["rl-sft"] = {"value": -0.02, "low": -0.03, "high": -0.01}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert "drawn right, 2.0 points fewer than SFT</h1>" in page_of(folder, tmp_path)
    path = folder / "eval" / "rl" / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scale": 100.0}))
    page = page_of(folder, tmp_path)
    assert "<h1>RL: score 0.62, 2.0 points less than SFT</h1>" in page
    assert "The score is the benchmark&#39;s own" in page or "The score is the benchmark's own" in page


def test_measures_have_labels_that_a_stranger_understands(quickstart, tmp_path):
    folder = shutil.copytree(quickstart, tmp_path / "run")
    path = folder / "eval" / "rl" / "summary.json"
    summary = json.loads(path.read_text())
    summary["understanding"] = {
        "accuracy": 0.82, "low": 0.78, "high": 0.86, "auroc": 0.92, "yes_frac": 0.58, "questions": 280,
        "per_type": {"exists": {"value": 0.9, "low": 0.8, "high": 0.97}}, "blanked": {"accuracy": 0.5, "auroc": 0.5},
    }  # fmt: skip
    path.write_text(json.dumps(summary))
    text = text_of(page_of(folder, tmp_path))
    for words in ("all questions", "is it there?", "blank picture (chance: 0.5)", "0.78 to 0.86"):
        assert words in text
    for key in ("per type", "yes frac", "blanked", "280.00"):
        assert key not in text


def test_every_part_of_a_quickstart_is_on_the_page(quickstart, tmp_path):
    text = text_of(page_of(quickstart, tmp_path))
    for words in (
        "31 min 12 s",
        "3.4 GB",
        "torch 2.13.0",
        "guidance_in_loss",
        "single object",
        "Reward",
        "Time per phase",
    ):
        assert words in text
    for words in (
        "Understanding",
        "Diversity",
        "Thought precision",
        "KL to the reference",
        "3 pictures have no verdict",
    ):
        assert words in text
    assert "Entropy coefficient" not in text  # only zeros were measured


def test_hostile_text_is_shown_and_never_becomes_an_element(quickstart, tmp_path):
    page = page_of(quickstart, tmp_path)
    elements = Elements(page)
    assert HOSTILE[0] in text_of(page) and "{{ 7 * 7 }}" in text_of(page)
    assert [tag for tag, _ in elements.tags].count("script") == 2  # the data and the page's own
    assert not [attributes for _, attributes in elements.tags if any(name.startswith("on") for name in attributes)]
    assert "alert(" not in elements.scripts[1] and "<" not in elements.scripts[0]
    assert data_of(page)["groups"][0]["prompt"] == HOSTILE[0]


def test_the_page_refers_to_nothing_outside_itself(quickstart, tmp_path):
    page = page_of(quickstart, tmp_path)
    for tag, attributes in Elements(page).tags:
        for name in ("src", "href", "srcset", "action", "data"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/png;base64,", "data:,")), (tag, name, value)
    assert "url(" not in page and "@import" not in page and "default-src 'none'" in page


def test_groups_are_sorted_by_reward_with_no_verdict_last_and_as_null(quickstart, tmp_path):
    for group in data_of(page_of(quickstart, tmp_path))["groups"]:
        rewards = [member["reward"] for member in group["members"]]
        known = [reward for reward in rewards if reward is not None]
        assert len(rewards) == 8 and rewards == [*sorted(known, reverse=True), None]


def test_scores_and_differences_come_from_the_pictures_when_nothing_is_summarised(tmp_path):
    folder = tmp_path / "run"
    for stage, share in (("sft", 0.3), ("rl", 0.8)):
        write_eval(folder / "eval", stage, share)
        (folder / "eval" / stage / "summary.json").unlink()
    page = page_of(folder, tmp_path)
    assert re.search(r"<h1>RL: \d\d % of test prompts drawn right, \d\d\.\d points more than SFT</h1>", page)
    assert "No training run in this folder" in page


@pytest.mark.parametrize(("part", "headline"), [("sft", "SFT: loss from"), ("grpo", "GRPO: mean reward from")])
def test_a_single_run_has_a_page_without_an_evaluation(quickstart, tmp_path, part, headline):
    page = page_of(quickstart / part, tmp_path)
    assert f"<h1>{headline}" in page and "No evaluation in this folder" in page
    assert ('id="inspector"' in page) == (part == "grpo")


def test_values_that_are_missing_null_or_nan_leave_gaps(tmp_path):
    rows = grpo_rows(120)
    for i, row in enumerate(rows):
        row["entropy_text"] = float("nan") if i % 2 else None
        row["reward_mean"] = None if 40 <= i < 60 else row["reward_mean"]
        if i > 30:
            row.pop("kl_text")
    write_run(tmp_path / "run", rows, "not: [valid")
    page = page_of(tmp_path / "run", tmp_path)
    assert "nan" not in re.sub(r"base64,[^\"]+", "", page).lower().replace("nanmean", "")
    assert "not: [valid" in page and "is not YAML" in page


def test_one_row_of_metrics_is_enough_and_none_is_said(tmp_path):
    write_run(tmp_path / "one", grpo_rows(1), "")
    assert "GRPO" in page_of(tmp_path / "one", tmp_path)
    write_run(tmp_path / "none", [], "")
    page = page_of(tmp_path / "none", tmp_path)
    assert "Nothing was measured yet" in page and "No metrics yet" in page


def test_damaged_files_become_notes(quickstart, tmp_path):
    folder = shutil.copytree(quickstart / "grpo", tmp_path / "run")
    (folder / "rollouts" / "step_000010.parquet").write_bytes(b"PAR1 not a table")
    (folder / "environment.json").write_text("{")
    page = page_of(folder, tmp_path)
    assert "step_000010.parquet in rollouts/ cannot be read" in page and "environment.json in run/ is not JSON" in page
    assert {group["step"] for group in data_of(page)["groups"]} == {100, 200}


def test_the_size_of_a_page_is_bounded(tmp_path):
    folder = tmp_path / "run"
    write_run(folder, sft_rows(5000), "")
    for step in range(10, 610, 10):  # 60 files
        write_rollouts(folder / "rollouts", step, ("a",), group_size=2)
    data = data_of(page_of(folder, tmp_path))
    steps = {group["step"] for group in data["groups"]}
    assert len(steps) == MAX_INSPECTED_STEPS and {10, 600} <= steps
    assert {len(chart["at"]) for chart in data["charts"].values()} == {400}


def test_large_pictures_are_scaled_down(tmp_path):
    write_eval(tmp_path / "run" / "eval", "rl", 0.5, prompts=1)
    big = picture(0, side=768)
    (tmp_path / "run" / "eval" / "pictures" / "rl" / "00000_0.png").write_bytes(big)
    page = page_of(tmp_path / "run", tmp_path)
    (embedded,) = re.findall(r'img src="(data:image/png;base64,[^"]+)"', page)
    assert len(embedded) < 40_000


def test_a_missing_or_foreign_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        write_report(tmp_path / "absent")
    with pytest.raises(UserError, match="holds no run"):
        write_report(tmp_path)


def test_rows_of_unknown_shape_are_survived(tmp_path):
    write_jsonl(tmp_path / "run" / "metrics.jsonl", [{"step": "x", "reward_mean": "high", "loss": True}, {}])
    write_jsonl(tmp_path / "run" / "eval" / "rl" / "results.jsonl", [{"correct": None}, {"prompt": 3, "correct": True}])
    (tmp_path / "run" / "eval" / "sft").mkdir()
    (tmp_path / "run" / "eval" / "sft" / "summary.json").write_text('{"score": null, "per_task": {"a": null}}')
    assert "Result" in page_of(tmp_path / "run", tmp_path)
