"""Checkpoints that are stored in half precision open in bf16 on a GPU, and in fp32 on a CPU."""

import json

import pytest
import torch

from thinkdraw.policies import opening
from thinkdraw.runtime.device import stored_dtype


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"dtype": "bfloat16"}, "bf16"), ({"torch_dtype": "float16"}, "bf16"), ({"dtype": "float32"}, "fp32"), ({}, "fp32"),
        ({"model_type": "multi_modality", "torch_dtype": "bfloat16"}, "bf16"),
    ],
)  # fmt: skip
def test_the_dtype_is_that_of_the_files(tmp_path, config, dtype):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert stored_dtype(str(tmp_path)) == dtype


def test_what_draws_opens_on_the_fastest_device_in_the_dtype_of_its_files(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "bfloat16"}))
    calls = []
    monkeypatch.setattr(opening, "load_policy", lambda path, **options: calls.append(options))
    for device in ("cpu", "cuda"):
        monkeypatch.setattr(opening, "pick_device", lambda name, device=device: torch.device(device))
        opening.load_trained(tmp_path)
    opening.load_trained(tmp_path, dtype="fp32")
    assert [(c["device"], c["dtype"]) for c in calls] == [("cpu", "fp32"), ("cuda", "bf16"), ("cuda", "fp32")]
