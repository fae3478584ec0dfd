"""What holds a run folder: finished steps, their configuration, and what they read. A start that was refused holds nothing."""

import json
import shutil

import pytest
import yaml
from safetensors.torch import load_file, save_file
from tests.training.helpers import grpo_config, rows_without_times, sft_config, write_examples

from thinkdraw.config import save_config
from thinkdraw.errors import HeldError, UserError
from thinkdraw.recipes import sft
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.folder import RunFolder
from thinkdraw.training.run import Run
from thinkdraw.training.world import World


def test_a_folder_without_a_finished_step_is_taken_over_by_another_configuration(tmp_path, policy):
    first = sft_config(tmp_path, policy, drop_frac=0.3, seed=3)
    with pytest.raises(UserError, match="on its way to the first step"), Run.open(first) as run:
        run.begin()
        raise UserError("on its way to the first step")
    assert (first.out / "config.yaml").exists()
    second = sft_config(tmp_path, policy, max_steps=1, resume=False)
    sft.run(second)
    assert yaml.safe_load((second.out / "config.yaml").read_text())["seed"] == 0
    fresh = sft_config(tmp_path / "fresh", policy, max_steps=1)
    sft.run(fresh)
    assert rows_without_times(second.out) == rows_without_times(fresh.out)
    assert (second.out / "started.json").read_text() == (fresh.out / "started.json").read_text()


def test_a_refused_start_leaves_no_trace_and_its_way_out_works_in_the_same_folder(tmp_path, policy):
    with pytest.raises(UserError, match=r"20 examples are fewer than batch_rows=21\. Lower batch_rows"):
        sft.run(sft_config(tmp_path, policy, batch_rows=21))
    assert not (tmp_path / "run").exists()
    sft.run(sft_config(tmp_path, policy, batch_rows=20, max_steps=1))


def test_a_finished_step_without_a_checkpoint_still_holds_its_folder(tmp_path, policy):
    config = sft_config(tmp_path, policy, max_steps=1)
    sft.run(config)
    shutil.rmtree(config.out / "checkpoints")
    with pytest.raises(HeldError, match="drop_frac"):
        sft.run(sft_config(tmp_path, policy, max_steps=1, drop_frac=0.2))


def test_rows_that_changed_are_refused_or_taken_up_and_said(tmp_path, policy, capsys):
    config = sft_config(tmp_path, policy, max_steps=1)
    source = config.data.source
    sft.run(config)
    before = (config.out / "metrics.jsonl").read_text()
    write_examples(tmp_path / "examples.jsonl", 21)
    more = config.model_copy(update={"max_steps": 2})
    with pytest.raises(HeldError, match=rf"data.source={source} has changed \(20 rows then, 21 now\)"):
        sft.run(more)
    assert (config.out / "metrics.jsonl").read_text() == before
    capsys.readouterr()
    sft.run(more.model_copy(update={"changed_inputs": "take"}))
    assert "the new content is read from step 1 on" in capsys.readouterr().err
    assert json.loads((config.out / "inputs.json").read_text())["data.source"]["since"] == 1


def test_another_policy_under_the_same_name_is_refused(tmp_path, policy):
    mine = tmp_path / "mine"
    shutil.copytree(policy, mine)
    sft.run(sft_config(tmp_path, str(mine), max_steps=1))
    weights = load_file(mine / "model.safetensors")
    settings = (mine / "generation_config.json").read_text()
    (mine / "generation_config.json").write_text(json.dumps(json.loads(settings) | {"top_k": 3}))
    with pytest.raises(HeldError, match=r"policy=.*mine has changed"):
        sft.run(sft_config(tmp_path, str(mine), max_steps=2))
    (mine / "generation_config.json").write_text(settings)
    name = next(name for name in sorted(weights) if "layers.0.mlp.down_proj" in name)
    save_file(weights | {name: weights[name] * 1.5}, mine / "model.safetensors", {"format": "pt"})
    with pytest.raises(HeldError, match=r"policy=.*mine has changed"):
        sft.run(sft_config(tmp_path, str(mine), max_steps=2))
    save_file(weights, mine / "model.safetensors", {"format": "pt"})
    sft.run(sft_config(tmp_path, str(mine), max_steps=2))


def test_an_older_configuration_lacks_keys_that_came_later_and_goes_on(tmp_path, policy):
    config = sft_config(tmp_path, policy, max_steps=1)
    sft.run(config)
    file = config.out / "config.yaml"
    older = yaml.safe_load(file.read_text())
    del older["data"]["over_long"], older["changed_inputs"], older["optimiser"]["offload"]
    file.write_text(yaml.safe_dump(older))
    (config.out / "inputs.json").unlink()
    sft.run(config.model_copy(update={"max_steps": 2}))
    assert [row["step"] for row in rows_without_times(config.out)] == [1, 2]


def test_what_errors_advise_to_change_may_change_and_is_said(tmp_path, policy, capsys):
    config = sft_config(tmp_path, policy, max_steps=1)
    sft.run(config)
    slower = config.optimiser.model_copy(update={"learning_rate": config.optimiser.learning_rate / 2})
    changes = {"max_steps": 2, "micro_rows": 1, "save_every": 1, "keep_checkpoints": 1, "num_threads": 1}
    capsys.readouterr()
    sft.run(config.model_copy(update=changes | {"optimiser": slower}))
    said = capsys.readouterr().err
    assert "another value than before: optimiser.learning_rate" in said and "micro_rows" not in said
    with pytest.raises(HeldError, match=r"batch_rows \(\d+ there, 5 now\)"):
        sft.run(config.model_copy(update={"batch_rows": 5}))


def test_a_judge_may_move_to_another_address(tmp_path, policy):
    settings = {"questioner": {"name": "openai", "model": "m", "base_url": "http://127.0.0.1:1/v1"}}
    config = grpo_config(tmp_path, policy, reward={"name": "orm", "settings": settings})
    config.out.mkdir(parents=True)
    save_config(config, config.out / "config.yaml")
    MetricsLog(config.out / "metrics.jsonl").append({"step": 1})
    moved = {"questioner": settings["questioner"] | {"base_url": "http://127.0.0.2:1/v1"}}
    RunFolder(grpo_config(tmp_path, policy, reward={"name": "orm", "settings": moved}), World(config)).read()
    other = {"questioner": settings["questioner"] | {"model": "n"}}
    with pytest.raises(HeldError, match=r"reward\.settings\.questioner\.model"):
        RunFolder(grpo_config(tmp_path, policy, reward={"name": "orm", "settings": other}), World(config)).read()
