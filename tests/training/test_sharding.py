import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import load_file
from tests.training import sharding_jobs as jobs
from tests.training.helpers import ROOT, rows_without_times

from thinkdraw.config import load_config
from thinkdraw.errors import UserError
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.recipes import grpo
from thinkdraw.recipes.preference import PreferenceConfig
from thinkdraw.recipes.sft import SftConfig
from thinkdraw.runtime.checkpoint import latest_checkpoint
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.optimiser import Optimiser
from thinkdraw.training.run import open_policy
from thinkdraw.training.world import World

pytestmark = pytest.mark.slow

ENV = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def two_processes(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*start, "-m", "tests.training.sharding_jobs", str(folder), *names]
    done = subprocess.run(command, cwd=ROOT, env=ENV, stderr=subprocess.PIPE, text=True, timeout=400)
    (folder / "ended").touch()
    return done


@pytest.fixture(scope="module")
def one_process():
    """Sharding in this process opens a process group of one, which later tests must not find."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("sharding")
    random_janus(place / "policy", layers=2)
    return place


@pytest.fixture(scope="module")
def first(folder) -> subprocess.CompletedProcess[str]:
    """Two processes: gradients, runs of two steps, and a run in which process 1 raises."""
    done = two_processes(folder, "gradients", "runs", "one_sided", "other_weights", "raises")
    assert (folder / "raises.once").exists(), done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def second(folder, first, one_process) -> subprocess.CompletedProcess[str]:
    """One process goes on with what two began; then two again, who take up the run that failed, and one is killed."""
    grpo.run(jobs.run_config(folder, "shards", sharding="fsdp2", max_steps=3))
    done = two_processes(folder, "back_to_two", "raises", "killed")
    assert (folder / "killed.once").exists(), done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def alone(folder) -> Path:
    """One process, whole weights, four steps without an interruption."""
    return grpo.run(jobs.run_config(folder, "alone", max_steps=4))


@pytest.fixture(scope="module")
def adapters_alone(folder) -> Path:
    """One process trains adapters."""
    jobs.adapters(folder, "alone", "none", rank=7)
    return folder


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(run / f"checkpoints/step_{step:06d}/model.safetensors")


def difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def relative_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    gap = sum(float((a[n] - b[n]).double().square().sum()) for n in a)
    return (gap / sum(float(a[n].double().square().sum()) for n in a)) ** 0.5


def read_gradient(file: Path) -> tuple[float, dict[str, torch.Tensor]]:
    with safe_open(file, "pt") as found:
        return json.loads(found.metadata()["loss"]), {name: found.get_tensor(name) for name in list(found.keys())}


@pytest.mark.parametrize("name", jobs.BATCHES)
def test_loss_and_gradients_of_a_fixed_batch_are_those_of_one_process(folder, first, name):
    # Process 0 has 4 rows in 2 passes, process 1 has 7 rows in 3: sums over both, and nobody waits for ever.
    loss, whole = jobs.gradient(folder, name, "none")
    tolerance = 1e-4 if name != "bf16" else 1e-2  # bf16 rounds each process's part of a sum
    for sharding in ("none", "fsdp2"):
        other, grads = read_gradient(folder / f"{name}_{sharding}.grads")
        assert other == pytest.approx(loss, rel=1e-4)
        assert relative_difference(whole, grads) < tolerance
    replicated, sharded = (read_gradient(folder / f"{name}_{sharding}.grads")[1] for sharding in ("none", "fsdp2"))
    assert relative_difference(replicated, sharded) < 1e-4


def test_a_sharded_run_gives_the_weights_and_metrics_of_the_replicated_one(folder, first):
    for run in ("", "sft_"):
        whole, shards = folder / f"{run}whole", folder / f"{run}shards"
        assert difference(weights(whole, 2), weights(shards, 2)) < 1e-5
        assert difference(weights(whole, 2), load_file(folder / "policy/model.safetensors")) > 1e-4
        for left, right in zip(rows_without_times(whole), rows_without_times(shards), strict=True):
            assert right == pytest.approx(left, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_adapters_on_two_processes_are_those_of_one_after_every_step(adapters_alone, first, recipe):
    begun = load_file(adapters_alone / "policy/model.safetensors")
    for step in (1, 2, 3):
        alone = weights(adapters_alone / f"{recipe}_alone", step)
        assert difference(alone, begun) > 1e-4
        for sharding in ("whole", "shards"):
            assert difference(alone, weights(adapters_alone / f"{recipe}_{sharding}", step)) < 1e-5


def test_a_process_with_other_weights_is_named_by_all_whether_they_are_in_shards_or_not(folder, first):
    for rank in (0, 1):
        replicated, sharded, alike, later = json.loads((folder / f"other_weights_{rank}.json").read_text())
        for said in (replicated, sharded):
            assert said.startswith("the weights at the start: process 1 differs from process 0 in 1 of ")
            assert f", {jobs.LAST_ADAPTER} the first (" in said
        assert alike == ""
        assert later.startswith("the weights after step 7: process 1 differs from process 0 in 1 of ")


@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_the_same_command_and_seed_give_the_same_metrics_with_adapters_on_two_processes(folder, first, recipe):
    once, again = (rows_without_times(folder / f"{recipe}_{name}") for name in ("whole", "again"))
    assert once == again and len(once) == 3


def test_a_process_with_nothing_to_learn_from_takes_part_in_every_recipe(folder, first):
    runs = [folder / f"one_sided_{name}" for name in ("none", "fsdp2", "dpo", "rejection")]
    for run in runs:
        begun = load_file(folder / "policy/model.safetensors")
        assert difference(weights(run, 2), begun) > 1e-6
        assert all(math.isfinite(row["loss"]) for row in rows_without_times(run))
    assert difference(weights(runs[0], 2), weights(runs[1], 2)) < 1e-5


def test_the_state_is_in_shards_of_equal_size_without_pickles_and_the_rest_is_a_plain_checkpoint(folder, first):
    from transformers import JanusForConditionalGeneration

    checkpoint = folder / "shards/checkpoints/step_000002"
    sizes = [file.stat().st_size for file in sorted((checkpoint / "trainer_state").iterdir())]
    # Three fp32 numbers, weight and two moments, of each trained weight; half of them per process, and a header.
    trained = sum(g.numel() for g in read_gradient(folder / "plain_none.grads")[1].values())
    assert len(sizes) == 2 and all(size == pytest.approx(trained * 12 / 2, rel=0.05) for size in sizes)
    assert {f.suffix for f in checkpoint.rglob("*") if f.is_file()} == {".safetensors", ".json", ".jinja"}
    model = JanusForConditionalGeneration.from_pretrained(checkpoint)
    assert difference(dict(model.state_dict()), weights(folder / "shards", 2)) == 0
    adapted = load_file(folder / "sft_shards/checkpoints/step_000002/model.safetensors")
    assert adapted.keys() == model.state_dict().keys()


def test_two_processes_go_on_alone_and_two_again_to_the_same_weights(folder, second, alone):
    assert [row["step"] for row in MetricsLog.read(folder / "shards/metrics.jsonl")] == [1, 2, 3, 4]
    for step in (2, 3, 4):  # saved by two processes, by one, by two
        assert difference(weights(alone, step), weights(folder / "shards", step)) < 1e-5


def test_sharding_may_change_between_an_interrupted_run_and_its_continuation(folder, second, alone):
    grpo.run(jobs.dies_config(folder, "raises", sharding="none", max_steps=4))
    grpo.run(jobs.run_config(folder, "whole", sharding="fsdp2", max_steps=3))
    assert difference(weights(alone, 4), weights(folder / "raises", 4)) < 1e-5
    assert difference(weights(alone, 3), weights(folder / "whole", 3)) < 1e-5


def test_a_process_that_fails_stops_the_others_with_its_error_and_the_run_resumes(folder, first, second, alone):
    assert first.returncode != 0 and "the judge of process 1 fell over" in first.stderr
    assert difference(weights(alone, 3), weights(folder / "raises", 3)) < 1e-5


def test_a_process_that_is_killed_stops_the_others_within_a_minute_and_the_run_resumes(folder, second, alone):
    assert second.returncode != 0 and "Signal 9 (SIGKILL)" in second.stderr
    killed, ended = ((folder / name).stat().st_mtime for name in ("killed.once", "ended"))
    assert ended - killed < 60
    assert latest_checkpoint(folder / "killed") in [folder / f"killed/checkpoints/step_00000{n}" for n in (1, 2)]
    grpo.run(jobs.dies_config(folder, "killed"))
    assert difference(weights(alone, 3), weights(folder / "killed", 3)) < 1e-5


def test_sampling_finds_the_weights_whole_and_learning_finds_them_in_shards(folder, one_process):
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

    config = jobs.batch_config(folder, "plain", sharding="fsdp2")
    world = World(config)
    policy = open_policy(config, world)
    optimiser = Optimiser(policy, config.optimiser, world)
    assert all(isinstance(p, DTensor) for p in policy.network.parameters() if p.requires_grad)
    with optimiser.full_weights():
        assert not [m for m in policy.network.modules() if isinstance(m, FSDPModule)]
        assert not [p for p in policy.model.parameters() if isinstance(p, DTensor)]
        first, before = jobs.batch(policy, config), policy.revision
    optimiser.masters["model.lm_head.weight"].detach().mul_(0.5)
    with optimiser.full_weights():
        assert policy.revision != before
        second = jobs.batch(policy, config)
    assert not torch.equal(first.log_probs, second.log_probs)


def test_what_cannot_be_sharded_is_refused(folder, monkeypatch):
    with pytest.raises(UserError, match="the run has 1 processes and not 2"):
        grpo.run(jobs.run_config(folder, "refused", sharding="fsdp2", num_processes=2))
    with pytest.raises(UserError, match="sharding=fsdp2 is for recipes sft and grpo"):
        load_config(PreferenceConfig, None, ["sharding=fsdp2"])
    with pytest.raises(UserError, match="rows that are dropped have no thought"):
        load_config(SftConfig, None, ["sharding=fsdp2", "thought=rewrite"])
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="Start without --use_fsdp"):
        World(jobs.run_config(folder, "refused"))


def test_tied_weights_are_refused_with_their_names(folder, one_process):
    config = jobs.batch_config(folder, "plain", sharding="fsdp2")
    world = World(config)
    policy = open_policy(config, world)
    model: Any = policy.model
    model.lm_head.weight = model.get_input_embeddings().weight
    with pytest.raises(UserError, match=r"embed_tokens\.weight and .*lm_head\.weight are one tied weight"):
        Optimiser(policy, config.optimiser, world)
