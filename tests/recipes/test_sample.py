"""A store is filled and scored so that it can be stopped anywhere, and ends as if it had not been."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.rollouts.helpers import Witness
from typer.testing import CliRunner

from thinkdraw.cli import app
from thinkdraw.config import save_config
from thinkdraw.errors import HeldError, UserError
from thinkdraw.lab import checkpoint_path
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.policies import load_policy
from thinkdraw.recipes.phase.rollout import draw_seeds
from thinkdraw.recipes.sample import SampleConfig, run
from thinkdraw.recipes.score import ScoreConfig
from thinkdraw.recipes.score import run as run_score
from thinkdraw.rollouts import Judge, RolloutStore
from thinkdraw.types import Sampling

ROOT = Path(__file__).resolve().parents[2]
LOW = "tests.training.helpers:LowCodes"


def sample_config(out: Path, policy: str, **changes: Any) -> SampleConfig:
    values: dict[str, Any] = {
        "out": out, "policy": policy, "device": "cpu", "precision": "fp32", "num_threads": 1, "prompts": {"count": 6},
        "sampling": {"max_thought_tokens": 4}, "group_size": 2, "prompts_per_shard": 2, "rewards": [LOW],
    }  # fmt: skip
    return SampleConfig.model_validate(values | changes)


def score_config(store: Path, **changes: Any) -> ScoreConfig:
    return ScoreConfig.model_validate({"store": store, "device": "cpu", "num_threads": 1} | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, policy) -> RolloutStore:
    """6 groups of 2 in 3 shards, scored by low-codes. Not to be changed by a test."""
    return RolloutStore.open(run(sample_config(tmp_path_factory.mktemp("whole") / "store", policy)))


@pytest.mark.parametrize(("kill_in", "at_call", "shards"), [("publish", 3, 1), ("scores", 2, 2)])
def test_a_killed_run_goes_on_to_the_store_of_an_uninterrupted_one(tmp_path, policy, whole, kill_in, at_call, shards):
    # Each shard and each of its scores is published once: call 3 is the second shard, not yet in place.
    config = sample_config(tmp_path / "store", policy)
    save_config(config, tmp_path / "config.yaml")
    command = [sys.executable, "-m", "tests.rollouts.helpers", str(tmp_path / "config.yaml"), kill_in, str(at_call)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}/src:{ROOT}"})
    assert done.returncode == -signal.SIGKILL
    store = RolloutStore.open(config.out)
    assert store.readable_shards() == list(range(shards))
    assert store.scored_mask("low-codes").sum() == 4  # the first shard's
    run(config)
    assert store.info()["content_hash"] == whole.info()["content_hash"]
    np.testing.assert_array_equal(store.scores("low-codes"), whole.scores("low-codes"))
    assert not [path for path in config.out.rglob(".*")]  # nothing half written is left


def test_groups_follow_the_prompts_and_the_seeds_of_a_phase(whole, policy):
    rollouts = [shard.rollouts() for shard in whole.shards()]
    assert torch.equal(torch.cat([r.seeds for r in rollouts]), draw_seeds(0, 0, 0, 6, 2))
    ids = [p.id for r in rollouts for p in r.prompts]
    assert ids == [f"lab-geneval-train-{n:04d}" for n in range(6) for _ in range(2)]
    trained = load_policy(policy)
    whole.check_revision(trained.revision)
    for r in rollouts:
        with torch.no_grad():
            assert (trained.log_probs(r).log_probs - r.log_probs).abs().max() <= 1e-4


def test_a_larger_count_goes_on_and_prompts_come_around_again(tmp_path, policy, whole):
    few = {"prompts": {"count": 4}, "rewards": []}
    run(sample_config(tmp_path / "store", policy, count=3, **few))
    run(sample_config(tmp_path / "store", policy, count=5, **few))
    store = RolloutStore.open(tmp_path / "store")
    assert [footer.num_groups for _, footer in store.footers()] == [2, 1, 2]
    for row in range(8):  # whatever shares their shard
        one, other = store.row(row), whole.row(row)
        assert torch.equal(one.tokens, other.tokens) and torch.equal(one.seeds, other.seeds)
    again = store.row(8)
    assert again.prompts == store.row(0).prompts and again.seeds != store.row(0).seeds


def test_another_config_another_store_and_another_checkpoint_are_refused(tmp_path, policy, whole):
    with pytest.raises(UserError, match=r"sampled with another config: group_size \(2 there, 4 now\)"):
        run(sample_config(whole.path, policy, group_size=4))
    RolloutStore.create(tmp_path / "mine", load_policy(policy), "inline")
    with pytest.raises(UserError, match="that `thinkdraw sample` did not make"):
        run(sample_config(tmp_path / "mine", policy))
    changed = load_policy(policy)
    with torch.no_grad():
        changed.model.lm_head.weight.mul_(1.5)
    changed.save(tmp_path / "changed")
    moved = sample_config(tmp_path / "store", str(tmp_path / "changed"), count=2)
    run(moved)
    load_policy(policy).save(tmp_path / "changed")
    with pytest.raises(UserError, match=r"row 0: rows 0 to 3 \(shard 000000\) are of revision"):
        run(moved.model_copy(update={"count": 4}))


def test_a_judge_that_fails_half_way_is_asked_for_each_row_once(tmp_path, policy):
    path = run(sample_config(tmp_path / "store", policy, rewards=[]))
    log, config = tmp_path / "log", score_config(path, reward={"name": "witness"})
    with pytest.raises(UserError, match=r"reward witness raised RuntimeError: the judge is gone \(helpers\.py"):
        run_score(config, Witness(str(log), fail_at_call=2))
    store = RolloutStore.open(path)
    assert store.scored_mask("witness").sum() == 4
    run_score(config, Witness(str(log)))
    run_score(config, Witness(str(log)))  # nothing is left to do
    seeds = [int(s) for shard in store.shards() for s in shard.rollouts().seeds]
    assert Counter(map(int, log.read_text().split())) == Counter(seeds)
    expected = torch.cat([shard.rollouts().image_tokens().float().mean(1) for shard in store.shards()])
    np.testing.assert_array_equal(store.scores("witness"), expected.numpy())


def test_small_chunks_are_whole_groups_and_give_the_same_scores(tmp_path, policy):
    path = run(sample_config(tmp_path / "store", policy, rewards=["lab-detector"]))
    run_score(score_config(path, name="in-chunks", chunk=1))
    store = RolloutStore.open(path)
    np.testing.assert_array_equal(store.scores("in-chunks"), store.scores("lab-detector"))
    parts = store.column("in-chunks").table(0, dict(store.footers())[0])["components"].to_pylist()
    assert set(json.loads(parts[0])) == {"facts", "correct"}


def test_scores_of_other_settings_need_another_name(tmp_path, policy):
    path = run(sample_config(tmp_path / "store", policy, count=2, rewards=["lab-detector"]))
    strict = {"name": "lab-detector", "settings": {"strict_weight": 1.0}}
    with pytest.raises(UserError, match="Give these scores another name"):
        run_score(score_config(path, reward=strict))
    run_score(score_config(path, reward=strict, name="strict"))
    assert RolloutStore.open(path).judges == ["lab-detector", "strict"]


def test_pictures_need_the_policy_that_drew_them_or_one_with_its_codes(tmp_path, policy):
    store = RolloutStore.create(tmp_path / "store", load_policy(policy), "off")
    prompts = [example.prompt for example in prompt_set("geneval", "train", 2)]
    store.append(load_policy(policy).sample(prompts, Sampling(thought="off")), policy_path=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"row 0 cannot be decoded: policy .*gone is not a folder.* policy=CKPT"):
        run_score(score_config(store.path))
    run_score(score_config(store.path, policy=policy))
    assert store.scored_mask("lab-detector").all()


def test_damaged_shards_are_left_out_on_request(tmp_path, policy):
    path = run(sample_config(tmp_path / "store", policy, rewards=[]))
    shard = path / "shards/000001.parquet"
    shard.write_bytes(shard.read_bytes()[:99])
    with pytest.raises(UserError, match=r"000001.parquet is damaged, row 4 and on"):
        run_score(score_config(path))
    run_score(score_config(path, skip_damaged=True))
    scored = RolloutStore.open(path).scored_mask("lab-detector", skip_damaged=True)
    assert scored.tolist() == [True] * 4 + [False] * 4 + [True] * 4


def test_the_verbs_sample_score_show_and_export(tmp_path, policy):
    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    store, flat = str(tmp_path / "a store: of mine"), str(tmp_path / "flat")
    (tmp_path / "prompts.txt").write_text("a red circle\na blue star\n")
    shown = json.loads(
        call(
            "sample", policy, "--out", store, f"prompts={tmp_path / 'prompts.txt'}", "--count", "3", "group_size=2",
            f"rewards=[{LOW}]", "thought=off", "precision=fp32", "device=cpu", "--json", "prompts_per_shard=2",
        )
    )  # fmt: skip
    assert (shown["rows"], shown["groups"], shown["shards"], shown["thought"]) == (6, 3, 2, "off")
    call("score", store, LOW, "name=rare", "device=cpu", "reward.settings.no_verdict_every=2")
    shown = json.loads(call("store", "info", store, "--json"))
    assert {name: judge["no_verdict"] for name, judge in shown["judges"].items()} == {"low-codes": 0, "rare": 3}
    assert "3 without verdict" in call("store", "info", store)
    call("store", "export", store, "--out", flat, "png=true", "jsonl=true")
    assert (
        len(list(Path(flat, "png").iterdir())) == 6 and len(Path(flat, "rollouts.jsonl").read_text().splitlines()) == 6
    )


def test_more_of_the_labs_prompts_go_on_with_the_same_store(tmp_path, policy):
    for count in ("1", "2"):
        result = CliRunner().invoke(
            app,
            ["sample", policy, "--out", str(tmp_path), "--count", count, "group_size=1", "sampling.max_thought_tokens=2"],
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    assert len(RolloutStore.open(tmp_path)) == 2


@pytest.mark.slow
@pytest.mark.skipif(not (checkpoint_path() / "config.json").exists(), reason="the lab checkpoint is not in this tree")
def test_the_code_of_the_page_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/rollout_store.md").read_text(), flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(RolloutStore.open(tmp_path / "runs/mine")) == 32


def test_other_prompts_in_their_places_are_refused_and_more_behind_them_are_taken_up(tmp_path, policy, caplog):
    file = tmp_path / "p.txt"
    file.write_text("a red circle\na blue square\n")
    config = sample_config(tmp_path / "store", policy, prompts={"source": str(file)}, rewards=[])
    run(config)
    file.write_text("a red circle\na green star\n")
    with pytest.raises(HeldError, match=r"goes on from group 2, and prompts\.source=.*p\.txt has changed"):
        run(config.model_copy(update={"count": 4}))
    file.write_text("a red circle\na blue square\na yellow ring\n")
    assert RolloutStore.open(run(config)).num_groups == 3 and "1 more prompts than before" in caplog.text
    assert RolloutStore.open(run(config)).num_groups == 3  # and is what the next start finds
    file.write_text("a red circle\na blue square\na grey ring\n")
    with pytest.raises(HeldError, match="has changed"):
        run(config)
    assert RolloutStore.open(run(config.model_copy(update={"changed_inputs": "take"}))).num_groups == 3


def test_a_store_without_a_shard_holds_nobody(tmp_path, policy):
    config = sample_config(tmp_path / "store", policy)
    RolloutStore.create(config.out, load_policy(policy, precision="fp32"), "off")
    save_config(config.model_copy(update={"seed": 7}), config.out / "sample.yaml")
    store = RolloutStore.open(run(config.model_copy(update={"count": 2})))
    assert store.num_groups == 2 and store.header.thought == "inline"


def test_a_judge_of_other_weights_or_code_does_not_go_on_with_the_scores(tmp_path, whole):

    column = whole.column("low-codes")
    assert column.judge.revision  # of the code of a reward of one's own
    copy = type(column)(tmp_path, "mine")
    copy.declare(Judge(reward=LOW))  # as it was written before
    copy.declare(column.judge)
    assert copy.judge == column.judge
    with pytest.raises(UserError, match="Give these scores another name"):
        copy.declare(column.judge.model_copy(update={"revision": "other"}))
