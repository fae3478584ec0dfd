"""Adapters leave a LoRA run as peft's folder, and come back behind a plus: BASE+ADAPTER."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy, split_adapter
from thinkdraw.policies.adapters import CONFIG, WEIGHTS
from thinkdraw.policies.janus import tiny
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.opening import policy_path
from thinkdraw.types import Prompt, Sampling


def opened(name: str | Path, **options) -> JanusPolicy:
    policy = load_policy(name, **options)
    assert isinstance(policy, JanusPolicy)
    return policy


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny.random_janus(tmp_path_factory.mktemp("adapters") / "base")


@pytest.fixture(scope="module")
def saved(base: Path) -> Path:
    """A checkpoint of a policy whose adapters are not zero."""
    policy = opened(base, lora=LoraSettings(rank=4))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in policy.network.named_parameters():
            if ".lora_B." in name:
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    policy.save(base.parent / "saved")
    return base.parent / "saved"


def test_base_and_adapter_are_the_checkpoint_that_they_were_merged_into(base: Path, saved: Path):
    merged, added = opened(saved), opened(f"{base}+{saved / 'adapter'}")
    assert merged.revision == added.revision != opened(base).revision
    rollouts = merged.sample([Prompt("a red circle")], Sampling(max_thought_tokens=6), group_size=2, seed=1)
    assert torch.equal(merged.log_probs(rollouts).log_probs, added.log_probs(rollouts).log_probs)
    assert not added.has_adapters and all(p.requires_grad for p in added.blocks.parameters())


def test_peft_itself_opens_the_folder_on_plain_transformers(base: Path, saved: Path):
    from peft import PeftModel
    from transformers import JanusForConditionalGeneration

    adapted = PeftModel.from_pretrained(JanusForConditionalGeneration.from_pretrained(base), str(saved / "adapter"))
    whole = JanusForConditionalGeneration.from_pretrained(saved)
    ids = torch.tensor([[0, 9, 12, 7]])
    difference = (adapted(input_ids=ids).logits - whole(input_ids=ids).logits).abs().max()
    assert difference < 1e-4  # merging rounds


def test_merged_adapters_can_be_trained_on_with_adapters_of_their_own(base: Path, saved: Path):
    policy = opened(f"{base}+{saved / 'adapter'}", lora=LoraSettings(rank=2))
    assert policy.has_adapters and policy.revision == opened(saved).revision


def test_a_run_or_checkpoint_stands_for_its_adapter(base: Path, saved: Path):
    assert policy_path(f"{base}+{saved}") == f"{base}+{saved / 'adapter'}"
    assert split_adapter("a+b+c") == ("a+b", "c") and split_adapter("plain") == ("plain", None)


def test_a_folder_with_a_plus_in_its_name_is_one_checkpoint(base: Path, tmp_path: Path):
    folder = tmp_path / "mine+yours"
    folder.symlink_to(base, target_is_directory=True)
    assert opened(folder).revision == opened(base).revision


def test_a_checkpoint_without_adapters_writes_none(base: Path, saved: Path, tmp_path: Path):
    for name in (str(base), f"{base}+{saved / 'adapter'}"):
        opened(name).save(tmp_path / "plain")
        assert not (tmp_path / "plain" / "adapter").exists()


def test_what_does_not_fit_is_said_in_a_line(base: Path, saved: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"adapters .*nowhere have no adapter_config\.json"):
        opened(f"{base}+{tmp_path / 'nowhere'}")
    other = tiny.random_janus(tmp_path / "other", hidden=32)
    with pytest.raises(UserError, match="do not fit this base"):
        opened(f"{other}+{saved / 'adapter'}")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    settings = json.loads((saved / "adapter" / CONFIG).read_text())
    (damaged / CONFIG).write_text(json.dumps(settings | {"target_modules": ["no_such_layer"]}))
    save_file(load_file(saved / "adapter" / WEIGHTS), damaged / WEIGHTS)
    with pytest.raises(UserError, match=r"adapters .*damaged"):
        opened(f"{base}+{damaged}")
