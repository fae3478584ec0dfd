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
