import json

import pytest
from tests.benchmarks.stub import StubPolicy

from thinkdraw.benchmarks.drawing import read_rows
from thinkdraw.benchmarks.lab.benchmark import compare, evaluate_lab
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.picture_reader import read_picture
from thinkdraw.types import Sampling

EXAMPLES = prompt_set("geneval", "test", 12)
ROW_KEYS = {
    "prompt_index", "prompt_id", "prompt", "tag", "sample", "seed", "correct", "fact_share", "reason", "thought",
    "thought_cut", "background", "detections", "diversity", "png_path",
}  # fmt: skip


def evaluate(folder=None, mistakes=0.0, policy=None, **more):
    policy = policy or StubPolicy(EXAMPLES, mistakes)
    settings = {"count": 12, "samples": 2, "sampling": Sampling(), "folder": folder, "keep_pictures": 3} | more
    return evaluate_lab(policy, **settings)


def test_a_policy_that_draws_what_is_asked_scores_one():
    report = evaluate()
    assert (report.score.value, report.score.pictures, report.score.prompts) == (1, 24, 12)
    assert report.facts.value == 1 and len(report.per_task) == 6
    assert report.thought_precision["all"].value == 1
    assert 1 < report.diversity["vendi"] <= 2


def test_the_score_is_the_share_of_correct_pictures_averaged_over_tasks():
    report = evaluate(mistakes=0.5)
    of_task = {tag: [r["correct"] for r in report.rows if r["tag"] == tag] for tag in report.per_task}
    means = {tag: sum(found) / len(found) for tag, found in of_task.items()}
    assert {tag: score.value for tag, score in report.per_task.items()} == means
    assert report.score.value == pytest.approx(sum(means.values()) / 6) and 0 < report.score.value < 1
    assert report.score.low < report.score.value < report.score.high
    assert all(row["correct"] == (row["reason"] == "") == (row["fact_share"] == 1) for row in report.rows)


def test_the_folder_holds_rows_a_summary_and_a_few_pictures(tmp_path):
    report = evaluate(tmp_path / "eval" / "sft", mistakes=0.5, questions_per_type=2)
    folder = tmp_path / "eval" / "sft"
    rows = read_rows(folder)
    assert len(rows) == 24 and all(row.keys() == ROW_KEYS for row in rows)
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["score"], summary["low"], summary["high"]) == (
        report.score.value, report.score.low, report.score.high,
    )  # fmt: skip
    assert (summary["pictures"], summary["prompts"], summary["no_verdict"]) == (24, 12, 0)
    assert set(summary["per_task"]["counting"]) == {"value", "low", "high", "pictures", "prompts"}
    assert summary["sampling"]["thought"] == "inline" and isinstance(summary["diversity"], float)
    assert summary["thought_precision"]["all"]["claims"] > 0 and 0 <= summary["understanding"]["accuracy"] <= 1
    kept = [row["png_path"] for row in rows if row["png_path"]]
    assert kept == [f"pictures/sft/0000{i}_0.png" for i in range(3)]
    assert all(read_picture(tmp_path / "eval" / path).shape == (64, 64, 3) for path in kept)


class Stops(StubPolicy):
    def sample(self, *args, **kwargs):
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return super().sample(*args, **kwargs)


def test_a_stopped_evaluation_goes_on_and_ends_with_the_same_files(tmp_path):
    whole, parts = tmp_path / "whole" / "base", tmp_path / "parts" / "base"
    evaluate(whole, mistakes=0.5, chunk=6)
    with pytest.raises(KeyboardInterrupt):
        evaluate(parts, policy=Stops(EXAMPLES, 0.5), chunk=6)
    assert not (parts / "summary.json").exists()
    policy = StubPolicy(EXAMPLES, 0.5)
    evaluate(parts, policy=policy, chunk=6)
    assert policy.drawn == 24 - 12
    for name in ("results.jsonl", "summary.json", "settings.json"):
        assert (parts / name).read_text() == (whole / name).read_text()


def test_a_finished_evaluation_draws_nothing_again(tmp_path):
    first = evaluate(tmp_path / "base")
    policy = StubPolicy(EXAMPLES)
    assert evaluate(tmp_path / "base", policy=policy).summary() == first.summary() and policy.drawn == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 5}, "seed=0, not 5"),
        ({"sampling": Sampling(temperature=0.5)}, "sampling="),
        ({"samples": 3}, "samples=2"),
    ],
)
def test_a_folder_of_another_evaluation_is_refused(tmp_path, change, message):
    evaluate(tmp_path / "base")
    with pytest.raises(UserError, match=message):
        evaluate(tmp_path / "base", **change)


def test_without_thoughts_and_with_one_sample_the_summary_has_nulls_and_no_claims():
    summary = evaluate(sampling=Sampling(thought="off"), samples=1).summary()
    assert summary["thought_precision"] == {} and summary["diversity"] is None
    json.dumps(summary, allow_nan=False)


def test_folders_are_compared_prompt_by_prompt(tmp_path):
    good, bad = evaluate(tmp_path / "good"), evaluate(tmp_path / "bad", mistakes=0.7)
    difference = compare(tmp_path / "good", tmp_path / "bad")
    assert difference.value == pytest.approx(good.score.value - bad.score.value) and difference.low > 0
    same = compare(tmp_path / "bad", tmp_path / "bad")
    assert same.value == 0 and same.low < 0 < same.high


def test_folders_with_other_prompts_are_not_compared(tmp_path):
    evaluate(tmp_path / "a")
    evaluate(tmp_path / "b", count=6)
    for other in ("b", "nowhere"):
        with pytest.raises(UserError, match="cannot be compared"):
            compare(tmp_path / "a", tmp_path / other)
