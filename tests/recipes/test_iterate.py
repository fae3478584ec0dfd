"""The loop at its smallest: the original policy is what is fine-tuned, its reinforced child is what is sampled."""

import pytest
import yaml
from tests.training.helpers import policy_dir

from thinkdraw.recipes import iterate
from thinkdraw.recipes.iterate import IterateConfig
from thinkdraw.rollouts import RolloutStore

REWARD = "tests.training.helpers:LowCodes"
SMALL = ["device=cpu", "precision=fp32", "num_threads=1", "save_every=1"]
RL = [
    *SMALL, f"reward.name={REWARD}", "prompts.count=6", "validation.every=0", "prompts_per_phase=2", "group_size=2",
    "sampling.max_thought_tokens=4", "max_steps=1",
]  # fmt: skip
SFT = [*SMALL, "judge=low-codes", "threshold=null", "best_of_group=true", "batch_rows=2", "max_steps=1"]


@pytest.mark.slow
def test_rounds_alternate_rl_and_sft_of_the_original(tmp_path):
    policy = policy_dir(tmp_path)
    sample = {"prompts": {"count": 4}, "group_size": 2, "sampling": {"max_thought_tokens": 4}, "rewards": [REWARD]}
    config = IterateConfig.model_validate(
        {
            "out": tmp_path / "loop",
            "policy": policy,
            "sample": sample | {"precision": "fp32", "device": "cpu"},
            "rounds": [{"grpo": RL, "rejection": SFT}, {"grpo": [*RL, "prompts.seed=1"]}],
        }
    )
    last = iterate.run(config)
    folder = tmp_path / "loop"
    assert last == folder / "round_001" / "rl" and not (folder / "round_001" / "sft").exists()

    def policy_of(part: str) -> str:
        return yaml.safe_load((folder / part / "config.yaml").read_text())["policy"]

    assert policy_of("round_000/rl") == policy_of("round_000/sft") == policy
    assert policy_of("round_001/rl") == str(folder / "round_000" / "sft")
    assert "round_000/rl" in str(RolloutStore.open(folder / "round_000" / "store").read_shard(0).footer.policy)

    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")}
    assert iterate.run(config) == last
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.safetensors")} == before
