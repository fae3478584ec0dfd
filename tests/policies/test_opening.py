"""Opening a checkpoint: what stands for it, and what is said of a folder that is none."""

import json

import pytest

from thinkdraw.errors import UserError
from thinkdraw.judges.loading import read_model
from thinkdraw.planning.shapes import find_shape
from thinkdraw.policies import load_policy


@pytest.mark.parametrize("open_it", [load_policy, find_shape, lambda path: read_model(path, {})])
def test_what_is_no_whole_checkpoint_is_said_of_every_folder_of_weights(tmp_path, open_it):
    """Whoever opens it, policy, planner or judge: git-lfs pointers, missing shards, adapters without their model."""
    lfs, shards, adapter = (tmp_path / name for name in ("lfs", "shards", "adapter"))
    for folder in (lfs, shards, adapter):
        folder.mkdir()
    for folder in (lfs, shards):
        (folder / "config.json").write_text('{"model_type": "janus"}')
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 133\n"
    (lfs / "tokenizer.json").write_text(pointer)
    with pytest.raises(UserError, match=r"tokenizer\.json is a git-lfs pointer .* `git lfs install && git lfs pull`"):
        open_it(str(lfs))
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    (shards / names["a"]).write_bytes(b"")
    with pytest.raises(UserError, match=r"names 2 files and 1 of them are not there, model-00002-of-00002"):
        open_it(str(shards))
    for settings, base in (({"base_model_name_or_path": "org/base"}, "org/base"), ("[", "which they do not name")):
        (adapter / "adapter_config.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
        with pytest.raises(UserError, match=rf"holds adapters .* {base}\. Merge them into it"):
            open_it(str(adapter))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("runs/lab_sft", r"`thinkdraw train lab_sft` makes it\. Run that first, or name another checkpoint"),
        ("runs/mine", r"is not a folder here\. Give a checkpoint folder"),
        ("mine/step_000010", r"is not a folder here"),
        ("runs/quickstart", r"It holds runs; give one of them: runs/quickstart/grpo, runs/quickstart/sft\."),
    ],
)
def test_a_missing_folder_is_not_looked_up_as_a_strangers_model(tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    for run in ("runs/quickstart/sft/checkpoints", "runs/quickstart/grpo/checkpoints", "mine"):
        (tmp_path / run).mkdir(parents=True)
    monkeypatch.setattr("transformers.PreTrainedConfig.get_config_dict", lambda path: pytest.fail("asked the hub"))
    with pytest.raises(UserError, match=says):
        load_policy(name)
