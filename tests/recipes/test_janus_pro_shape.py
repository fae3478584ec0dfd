"""A checkpoint of Janus-Pro's shape (true vocabulary, 576 image tokens, 384 pixels, sharded; few thin layers, random weights)
goes through check, an SFT step, a GRPO step and generate on a CPU."""

import json
from pathlib import Path

import pytest
import torch
from transformers import JanusForConditionalGeneration
from typer.testing import CliRunner

from thinkdraw.cli import app
from thinkdraw.policies import load_policy
from thinkdraw.policies.check import check_policy
from thinkdraw.policies.janus.tiny import build_directory, janus_config, train_tokenizer
from thinkdraw.recipes import grpo, sft
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.types import Rollouts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a photo of a red circle left of a blue square yes no Yes No"], 320)
    config = janus_config(
        tokenizer, hidden=32, layers=2, heads=2, image_size=384, codes=16_384, patch=16, channels=(1, 1, 1, 1, 1), vocab_size=102_400,
        vision_hidden=32, vision_layers=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("janus") / "pro"
    return build_directory(JanusForConditionalGeneration(config), tokenizer, folder, 384, 576, max_shard_size="8MB")


class BrightReward:
    """Mean brightness: any number that varies."""

    name = "bright"

    def __call__(self, rollouts: Rollouts) -> torch.Tensor:
        assert rollouts.pictures is not None
        return rollouts.pictures.float().mean((1, 2, 3)) / 255


def test_the_weights_are_sharded(checkpoint: Path):
    index = json.loads((checkpoint / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1


def test_check_passes(checkpoint: Path):
    result = check_policy(load_policy(checkpoint), prompts=("a photo of a red circle",), group_size=1)
    assert result.ok, result.as_dict()


def test_one_sft_step_and_one_grpo_step(checkpoint: Path, tmp_path: Path):
    rows = [
        {"prompt": f"a photo of {n} circles", "thought": f"I draw {n}.", "image_tokens": [n] * 576} for n in range(4)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows))
    trained = sft.run(
        sft.SftConfig.model_validate(
            {
                "out": tmp_path / "sft",
                "policy": str(checkpoint),
                "data": {"source": str(data)},
                "batch_rows": 2,
                "max_steps": 1,
            }
        )
    )
    assert MetricsLog.read(trained / "metrics.jsonl")[0]["grad_norm"] > 0
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of a red circle\n")
    settings = {
        "prompts_per_phase": 1,
        "group_size": 2,
        "max_steps": 1,
        "validation": {"every": 0},
        "precision": "fp32",
    }
    settings |= {"out": tmp_path / "grpo", "policy": str(trained), "prompts": {"source": str(prompts)}}
    settings |= {"sampling": {"max_thought_tokens": 8, "guidance_scale": 5.0}}
    learned = grpo.run(grpo.GrpoConfig.model_validate(settings), BrightReward())
    (row,) = MetricsLog.read(learned / "metrics.jsonl")
    assert row["ratio_max_deviation"] < 1e-3
    assert row["grad_norm"] > 0


def test_generate_writes_pictures_of_384_pixels(checkpoint: Path, tmp_path: Path):
    arguments = [
        "generate",
        str(checkpoint),
        "-p",
        "a photo of a red circle",
        "samples=1",
        "--out",
        str(tmp_path),
        "thought=off",
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    from thinkdraw.picture_reader import read_picture

    assert read_picture(tmp_path / "00000_0.png").shape == (384, 384, 3)
