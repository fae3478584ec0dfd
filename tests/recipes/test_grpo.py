import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tests.training.helpers import ROOT, LowCodes, grpo_config, grpo_gradients, rows_without_times

from thinkdraw.config import load_config, save_config
from thinkdraw.errors import UserError
from thinkdraw.recipes import grpo
from thinkdraw.recipes.phase.prompt_order import PromptOrder
from thinkdraw.recipes.phase.rollout import draw_seeds, sample_phase
from thinkdraw.recipes.phase.stats import phase_stats
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.checkpoint import latest_checkpoint, load_trainer_state
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.run import open_policy
from thinkdraw.training.world import World
from thinkdraw.types import Sampling

ENV = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def command(config_file: Path, processes: int = 1) -> list[str]:
    start = [sys.executable, "-m"]
    if processes > 1:
        start += ["torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    return [*start, "tests.training.helpers", "grpo", str(config_file)]


def relative_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    gap = sum(float((a[n] - b[n]).double().square().sum()) for n in a)
    return (gap / sum(float(a[n].double().square().sum()) for n in a)) ** 0.5


def order_of(config: grpo.GrpoConfig) -> PromptOrder:
    return PromptOrder.of(config.prompts, config.stages, config.seed, config.history)


@pytest.mark.parametrize("variant", ["grpo", "dapo"])
def test_any_split_into_micro_batches_gives_the_same_gradient(tmp_path, policy, variant):
    whole = grpo_config(tmp_path, policy, micro_rows=64, variant=variant, reward={"name": "x"})
    world, model = World(whole), open_policy(whole, World(whole))
    batch = sample_phase(model, as_reward(LowCodes(no_verdict_every=5)), order_of(whole), whole, 0, world).batch
    first, sums = grpo_gradients(whole, model, batch, (0.01, -0.02))
    for micro_rows in (1, 5):
        second, other = grpo_gradients(whole.model_copy(update={"micro_rows": micro_rows}), model, batch, (0.01, -0.02))
        assert relative_difference(first, second) < 1e-5
        assert other == pytest.approx(sums, rel=1e-4, abs=1e-6)


def test_two_processes_equal_one(tmp_path, policy):
    changes = {"max_steps": 2, "save_every": 1, "minibatches": 1, "micro_rows": 5, "optimiser": {"learning_rate": 1e-5}}
    changes |= {
        "validation": {"every": 1, "prompts": {"split": "validation", "count": 3}},
        "prompts_per_phase": 3,
        "keep_checkpoints": 5,
    }
    one, two = grpo_config(tmp_path / "one", policy, **changes), grpo_config(tmp_path / "two", policy, **changes)
    save_config(two, tmp_path / "two.yaml")
    job = subprocess.Popen(
        command(tmp_path / "two.yaml", processes=2), cwd=ROOT, env=ENV, stderr=subprocess.PIPE, text=True
    )
    grpo.run(one)
    _, errors = job.communicate(timeout=300)
    assert job.returncode == 0, errors[-2000:]
    for left, right in zip(rows_without_times(one.out), rows_without_times(two.out), strict=True):
        deviations = [row.pop("ratio_max_deviation") for row in (left, right)]
        assert max(deviations) < 1e-4
        assert right == pytest.approx(left, rel=1e-5, abs=1e-6)
    # exp_avg after one step is 0.1 × the clipped gradient.
    averages = [
        {
            n: s["exp_avg"]
            for n, s in load_trainer_state(c.out / "checkpoints/step_000001")["optimizer"]["state"].items()
        }
        for c in (one, two)
    ]
    assert relative_difference(*averages) < 1e-5


def test_a_killed_run_resumes_to_the_same_numbers(tmp_path, policy):
    changes = {"max_steps": 5, "save_every": 2, "minibatches": 1, "log_rollouts_every": 1, "entropy": {"band": 0.0}}
    changes |= {"validation": {"every": 2, "prompts": {"split": "validation", "count": 2}}, "prompts_per_phase": 2}
    killed, whole = (
        grpo_config(tmp_path / "killed", policy, **changes),
        grpo_config(tmp_path / "whole", policy, **changes),
    )
    save_config(killed, tmp_path / "killed.yaml")
    job = subprocess.Popen(command(tmp_path / "killed.yaml"), cwd=ROOT, env=ENV, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(MetricsLog.read(killed.out / "metrics.jsonl")) < 3:
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    assert latest_checkpoint(killed.out) is not None and len(MetricsLog.read(killed.out / "metrics.jsonl")) < 5
    grpo.run(killed)
    grpo.run(whole)
    assert rows_without_times(killed.out) == rows_without_times(whole.out)
    stores = [RolloutStore.open(c.out / "store") for c in (killed, whole)]
    assert len(stores[1]) == 5 * 2 * 4 and stores[0].info()["content_hash"] == stores[1].info()["content_hash"]
    scores = [store.scores("low-codes") for store in stores]
    assert (scores[0] == scores[1]).all()
    weights = [load_file(c.out / "checkpoints/step_000005/model.safetensors") for c in (killed, whole)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert (killed.out / "checkpoints/best").read_text() == (whole.out / "checkpoints/best").read_text()


def test_frozen_parts_stay_bit_identical_and_trained_parts_move(tmp_path, policy):
    config = grpo_config(
        tmp_path, policy, max_steps=1, optimiser={"learning_rate": 1e-2, "weight_decay": 0.1, "warmup_steps": 0}
    )
    grpo.run(config)
    before, after = (
        load_file(f"{policy}/model.safetensors"),
        load_file(config.out / "checkpoints/step_000001/model.safetensors"),
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [
        name for name in moved if "vqmodel" in name or "vision_model" in name or name.startswith("model.aligner")
    ]
    assert any("language_model" in n for n in moved) and any("generation_head" in n for n in moved)
    state = load_trainer_state(config.out / "checkpoints/step_000001")
    assert not [name for name in state["weights"] if "vqmodel" in name or "vision_model" in name]


def test_the_reward_rises(tmp_path, policy):
    config = grpo_config(
        tmp_path, policy, max_steps=12, prompts_per_phase=4, group_size=8, sampling=Sampling(thought="off"),
        micro_rows=32, optimiser={"learning_rate": 3e-3, "warmup_steps": 0}, entropy={"mode": "off"},
    )  # fmt: skip
    grpo.run(config)
    rewards = [row["reward_mean"] for row in MetricsLog.read(config.out / "metrics.jsonl")]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.2, rewards


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_the_first_ratio_is_one_and_kl_starts_at_zero(tmp_path, policy, guidance_scale):
    sampling = Sampling(max_thought_tokens=4, guidance_scale=guidance_scale)
    config = grpo_config(tmp_path, policy, sampling=sampling, beta=0.1, max_steps=2, prompts_per_phase=2)
    grpo.run(config)
    first, second = MetricsLog.read(config.out / "metrics.jsonl")
    assert first["ratio_max_deviation"] < 1e-4 and second["ratio_max_deviation"] < 1e-4
    assert first["kl_image"] < 1e-8 < second["kl_image"]


def test_minibatches_passes_and_recomputed_old_log_probs_clip_after_the_first_update(tmp_path, policy):
    changes = {"minibatches": 2, "passes": 2, "prompts_per_phase": 2, "max_steps": 4, "log_rollouts_every": 1}
    config = grpo_config(tmp_path, policy, old_log_probs="recomputed", **changes)
    grpo.run(config)
    (row,) = MetricsLog.read(config.out / "metrics.jsonl")
    assert row["step"] == 4 and row["phase"] == 1  # 2 minibatches × 2 passes
    assert row["pictures_sampled"] == 8 and row["sequences_trained"] == 16
    assert row["clip_frac_image"] > 0 and row["ratio_max_deviation"] < 1e-4
    table = pq.read_table(config.out / "rollouts/step_000004.parquet").to_pylist()
    assert [(r["group"], r["member"]) for r in table] == [(g, m) for g in range(2) for m in range(4)]
    assert table[0]["png"].startswith(b"\x89PNG") and '"low"' in table[0]["components"]


def test_groups_without_spread_are_refilled_a_bounded_number_of_times(tmp_path, policy):
    config = grpo_config(tmp_path, policy, refill_rounds=2)
    world, model = World(config), open_policy(config, World(config))
    order = order_of(config)
    phase = sample_phase(model, as_reward(LowCodes(constant=True)), order, config, 0, world)
    assert (order.cursor, phase.num_sampled) == (9, 36)  # 3 prompts × (1 + 2 rounds), 4 rollouts each
    assert len(phase.batch) == 12 and len(phase.verdicts) == 36

    class FlatFirst(LowCodes):
        calls = 0

        def __call__(self, rollouts):
            self.calls += 1
            rewards = super().__call__(rollouts)
            return rewards.index_fill(0, torch.arange(4), 1.0) if self.calls == 1 else rewards

    reward = FlatFirst()
    reward.components = lambda rollouts: {}
    order = order_of(config)
    phase = sample_phase(model, as_reward(reward), order, config, 0, world)
    # Group 0 was flat, so group 3 of the prompt that comes next stands in for it.
    assert phase.batch.groups.unique().tolist() == [1, 2, 3] and order.cursor == 4
    row = phase_stats(phase.batch, phase.verdicts, config, world)
    assert row["zero_variance_frac"] == 0 and row["reward_mean"] > row["reward_mean_trained"]
    grads, _ = grpo_gradients(config, model, phase.batch)
    assert grads


def test_seeds_depend_on_run_phase_prompt_and_member_and_not_on_who_draws():
    whole = draw_seeds(0, 3, 0, 6, 4)
    assert torch.equal(torch.cat([draw_seeds(0, 3, 0, 2, 4), draw_seeds(0, 3, 2, 4, 4)]), whole)
    assert (
        len(set(whole.tolist()) | set(draw_seeds(0, 4, 0, 6, 4).tolist()) | set(draw_seeds(1, 3, 0, 6, 4).tolist()))
        == 72
    )


def test_a_few_rows_without_a_verdict_are_left_out_and_counted(tmp_path, policy):
    config = grpo_config(tmp_path, policy, max_steps=1, max_no_verdict_frac=0.5)
    grpo.run(config, reward=LowCodes(no_verdict_every=6))
    (row,) = MetricsLog.read(config.out / "metrics.jsonl")
    assert row["no_verdict_frac"] == pytest.approx(2 / 12) and row["sequences_trained"] == 10


def test_many_rewards_without_a_verdict_stop_the_run_with_the_rewards_name(tmp_path, policy):
    with pytest.raises(UserError, match=r"low-codes gave no verdict .NaN. for 50%"):
        grpo.run(
            grpo_config(
                tmp_path,
                policy,
                reward={"name": "tests.training.helpers:LowCodes", "settings": {"no_verdict_every": 2}},
            )
        )


def test_a_constant_reward_is_said_loudly_once(tmp_path, policy, capsys):
    changes = {
        "max_steps": 4,
        "prompts_per_phase": 1,
        "group_size": 2,
        "sampling": Sampling(thought="off"),
        "entropy": {"mode": "off"},
    }
    grpo.run(grpo_config(tmp_path, policy, **changes), reward=LowCodes(constant=True))
    assert capsys.readouterr().err.count("without reward variance") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n\n", "holds no prompt"),
        ("a circle\n" + "a very long story " * 200, "exceeds the model's 512 positions"),
        (None, "cannot be read"),
    ],
)
def test_bad_prompt_files_stop_before_anything_is_sampled(tmp_path, policy, content, message):
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        grpo.run(grpo_config(tmp_path, policy, prompts={"source": str(file)}))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_group_of_one_is_refused():
    with pytest.raises(UserError, match="group_size=1"):
        load_config(grpo.GrpoConfig, None, ["group_size=1"])


def test_test_splits_cannot_be_named():
    with pytest.raises(UserError, match=r"validation\.prompts\.split='test'"):
        load_config(grpo.GrpoConfig, None, ["validation.prompts.split=test"])
