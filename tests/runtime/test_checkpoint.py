import math

import numpy as np
import pytest
import torch

from thinkdraw.errors import UserError
from thinkdraw.runtime import checkpoint as ck


def roundtrip(folder, state):
    ck.save_trainer_state(folder, state)
    return ck.load_trainer_state(folder)


def test_nested_state_comes_back_with_its_types(tmp_path):
    state = {
        "step": 7,
        "flags": [True, None, "x", 0.1, 2**70],
        "betas": (0.9, (0.999,)),
        "best": -math.inf,
        "by_index": {0: {"name": "a"}, 1: {}},
        "__tensor__": "a key that looks like one of ours",
        "score": np.float64(0.5),
    }
    assert roundtrip(tmp_path, state) == state
    assert math.isnan(roundtrip(tmp_path, {"loss": math.nan})["loss"])


def test_tensors_come_back_bit_for_bit_whatever_their_dtype_layout_and_sharing(tmp_path):
    base = torch.randn(4, 6)
    state = {
        "transposed": base.T,
        "view": base[1],
        "tied": base,
        "bf16": base.bfloat16(),
        "mask": base > 0,
        "index": torch.arange(3),
        "scalar": torch.tensor(3.0),
        "empty": torch.zeros(0, 2),
        "nested": [{"a": base[0]}],
    }
    loaded = roundtrip(tmp_path, state)
    for key in state.keys() - {"nested"}:
        assert loaded[key].dtype == state[key].dtype and torch.equal(loaded[key], state[key]), key
    assert torch.equal(loaded["nested"][0]["a"], base[0])


def test_an_optimizer_resumes_to_the_same_weights(tmp_path):
    def make():
        torch.manual_seed(0)
        layer = torch.nn.Linear(3, 2)
        return layer, torch.optim.AdamW(layer.parameters(), lr=0.1)

    def step(layer, optimizer):
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).pow(2).sum().backward()
        optimizer.step()

    layer, optimizer = make()
    step(layer, optimizer)
    saved = roundtrip(tmp_path, {"weights": dict(layer.state_dict()), "optimizer": optimizer.state_dict()})
    step(layer, optimizer)

    resumed, resumed_optimizer = make()
    resumed.load_state_dict(saved["weights"])
    resumed_optimizer.load_state_dict(saved["optimizer"])
    step(resumed, resumed_optimizer)
    assert torch.equal(layer.weight, resumed.weight)


def test_what_cannot_be_stored_is_named_with_its_place(tmp_path):
    with pytest.raises(TypeError, match=r"state\.'a'\.1 is a set"):
        ck.save_trainer_state(tmp_path, {"a": [1, {2}]})
    with pytest.raises(TypeError, match="keys other than strings and ints"):
        ck.save_trainer_state(tmp_path, {"a": {(1, 2): 3}})


def test_missing_or_damaged_state_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="holds no readable trainer state"):
        ck.load_trainer_state(tmp_path)
    ck.save_trainer_state(tmp_path, {"a": torch.ones(2)})
    (tmp_path / "trainer_state.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="holds no readable trainer state"):
        ck.load_trainer_state(tmp_path)


def write(run_dir, *steps):
    for step in steps:
        with ck.write_checkpoint(run_dir, step) as folder:
            ck.save_trainer_state(folder, {"step": step})


def names(run_dir):
    return sorted(f.name for f in (run_dir / "checkpoints").iterdir())


def test_the_latest_checkpoint_is_the_complete_one_with_the_highest_step(tmp_path):
    assert ck.latest_checkpoint(tmp_path) is None
    write(tmp_path, 2, 10, 1_000_000)
    for name in ("step_2000000", "step_000011.bak", "step_best"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert ck.latest_checkpoint(tmp_path).name == "step_1000000"
    assert ck.load_trainer_state(ck.latest_checkpoint(tmp_path)) == {"step": 1_000_000}


def test_a_checkpoint_whose_writing_fails_does_not_exist(tmp_path):
    write(tmp_path, 1)
    with pytest.raises(RuntimeError), ck.write_checkpoint(tmp_path, 2) as folder:
        ck.save_trainer_state(folder, {})
        raise RuntimeError
    assert names(tmp_path) == ["step_000001"]


def test_pruning_keeps_the_newest_and_the_named_and_removes_old_incomplete_ones(tmp_path):
    write(tmp_path, 1, 2, 3, 4)
    for name in ("step_000000", "step_000005"):  # 5 may be being written
        (tmp_path / "checkpoints" / name).mkdir()
    assert ck.prune_checkpoints(tmp_path, keep=1, also_keep={"step_000002"}) == [
        "step_000000",
        "step_000001",
        "step_000003",
    ]
    assert names(tmp_path) == ["step_000002", "step_000004", "step_000005"]


def test_pruning_to_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="keep=0"):
        ck.prune_checkpoints(tmp_path, keep=0)


def test_a_changed_or_missing_file_of_a_checkpoint_is_named(tmp_path):
    with ck.write_checkpoint(tmp_path, 3) as folder:
        (folder / "model.safetensors").write_bytes(bytes(100))
        ck.save_trainer_state(folder, {"a": 1})
    folder = tmp_path / "checkpoints/step_000003"
    ck.check_digests(folder)
    (folder / "model.safetensors").write_bytes(bytes(99) + b"\1")
    with pytest.raises(UserError, match=r"model.safetensors is not what was written.*earlier checkpoint"):
        ck.load_trainer_state(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"model.safetensors is missing"):
        ck.check_digests(folder)


def test_a_checkpoint_from_before_there_were_digests_and_a_published_model_pass(tmp_path):
    (tmp_path / ck.MARKER).write_text('{"step": 1}')
    ck.check_digests(tmp_path)
    ck.check_digests(tmp_path / "nowhere")
