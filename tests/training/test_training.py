import errno

import pytest
import torch
import yaml
from safetensors import SafetensorError
from tests.training.helpers import sft_config

from thinkdraw.config import load_config
from thinkdraw.errors import UserError
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.opening import policy_path
from thinkdraw.recipes import grpo, sft
from thinkdraw.recipes.catalog import shipped_configs
from thinkdraw.runtime.checkpoint import latest_checkpoint
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training import world
from thinkdraw.training.settings import OptimiserSettings

CONFIGS = sorted(shipped_configs().values())


def test_learning_rate_warms_up_and_decays_with_progress():
    settings = OptimiserSettings(learning_rate=1.0, warmup_steps=3, schedule="linear", final_frac=0.2)
    # step 0 -> 1/4, step 3 and later -> 1; at half the way 0.2 + 0.8 · 0.5 = 0.6
    assert settings.rate(0, 0.0) == pytest.approx(0.25)
    assert settings.rate(3, 0.0) == pytest.approx(1.0)
    assert settings.rate(9, 0.5) == pytest.approx(0.6)
    assert OptimiserSettings(learning_rate=1.0, warmup_steps=0, schedule="cosine", final_frac=0.0).rate(
        0, 1.0
    ) == pytest.approx(0.0)


def test_another_config_in_the_same_folder_is_refused_with_the_differing_keys(tmp_path, policy):
    config = sft_config(tmp_path, policy, max_steps=1)
    sft.run(config)
    with pytest.raises(UserError, match=r"drop_frac \(0\.1 there, 0\.2 now\), optimiser\.eps"):
        sft.run(
            sft_config(
                tmp_path,
                policy,
                max_steps=1,
                drop_frac=0.2,
                optimiser={"learning_rate": 1e-3, "warmup_steps": 0, "eps": 1e-6},
            )
        )
    with pytest.raises(UserError, match="resume=false"):
        sft.run(config.model_copy(update={"resume": False}))


def test_a_run_of_a_config_with_a_key_that_was_removed_goes_on(tmp_path, policy):
    sft.run(sft_config(tmp_path, policy, max_steps=1))
    written = tmp_path / "run" / "config.yaml"
    written.write_text(written.read_text() + "compile_layers: true\n")
    folder = sft.run(sft_config(tmp_path, policy, max_steps=2))
    assert [row["step"] for row in MetricsLog.read(folder / "metrics.jsonl")] == [1, 2]
    assert "compile_layers" not in written.read_text()


def test_a_finished_run_is_left_as_it_is(tmp_path, policy):
    config = sft_config(tmp_path, policy, max_steps=1)
    sft.run(config)
    rows = MetricsLog.read(config.out / "metrics.jsonl")
    sft.run(config)
    assert MetricsLog.read(config.out / "metrics.jsonl") == rows


def test_another_number_of_processes_than_asked_for_is_refused(tmp_path, policy):
    with pytest.raises(UserError, match="the run has 1 processes and not 2"):
        sft.run(sft_config(tmp_path, policy, num_processes=2))


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device")]
)
def test_a_full_disk_leaves_no_half_checkpoint(tmp_path, policy, monkeypatch, error):
    def fail(self, directory):
        (directory / "model.safetensors").write_bytes(b"half")
        raise error

    config = sft_config(tmp_path, policy, max_steps=2, save_every=1)
    sft.run(config.model_copy(update={"max_steps": 1}))
    monkeypatch.setattr(JanusPolicy, "save", fail)
    with pytest.raises(UserError, match=r"step_000002|step 2"):
        sft.run(config)
    assert latest_checkpoint(config.out) == config.out / "checkpoints/step_000001"
    assert [p.name for p in (config.out / "checkpoints").iterdir()] == ["step_000001"]
    monkeypatch.undo()
    sft.run(config)
    assert [row["step"] for row in MetricsLog.read(config.out / "metrics.jsonl")] == [1, 2]


def test_a_run_stops_when_its_seconds_are_over(tmp_path, policy):
    config = sft_config(tmp_path, policy, max_steps=10_000, max_seconds=1e-3, log_every=1000)
    sft.run(config)
    assert len(MetricsLog.read(config.out / "metrics.jsonl")) <= 1


def test_a_run_folder_stands_for_its_best_checkpoint_or_else_its_newest(tmp_path):
    for step in (1, 2):
        (tmp_path / f"checkpoints/step_00000{step}").mkdir(parents=True)
        (tmp_path / f"checkpoints/step_00000{step}/complete.json").write_text("{}")
    assert policy_path(str(tmp_path)).endswith("step_000002")
    (tmp_path / "checkpoints/best").write_text("step_000001\n")
    assert policy_path(str(tmp_path)).endswith("step_000001")
    assert policy_path("deepseek-community/Janus-Pro-1B") == "deepseek-community/Janus-Pro-1B"


@pytest.mark.parametrize(
    "path", [p for p in CONFIGS if yaml.safe_load(p.read_text()).get("recipe") in ("sft", "grpo")], ids=lambda p: p.stem
)
def test_shipped_configs_load_and_open_with_command_hardware_minutes_and_result(path):
    model = {"sft": sft.SftConfig, "grpo": grpo.GrpoConfig}[yaml.safe_load(path.read_text())["recipe"]]
    config = load_config(model, path)
    assert config.out.name == path.stem
    comment = path.read_text().split("recipe:")[0]
    for word in (f"thinkdraw train {path.stem}", "hardware:", "minutes:", "expected:"):
        assert word in comment


def test_the_threads_that_are_asked_for_outlast_those_that_accelerate_sets(tmp_path, policy, monkeypatch):
    before, accelerator = torch.get_num_threads(), world.Accelerator

    def chooses(*args, **kwargs):
        torch.set_num_threads(2)
        return accelerator(*args, **kwargs)

    monkeypatch.setattr(world, "Accelerator", chooses)
    try:
        world.World(sft_config(tmp_path, policy, num_threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
