"""The decoding loop over matrices computes what transformers' modules do, whatever stands in them."""

from typing import Any

import pytest
import torch
from tests.policies.suite import PROMPTS, SEEDS, assert_same_rollouts, difference, sampling, tolerance
from torch import nn
from transformers import JanusForConditionalGeneration

from thinkdraw.policies import load_policy, speed
from thinkdraw.policies.janus import functions
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.sampling.cache import KVCache
from thinkdraw.policies.sampling.decoder import Decoder
from thinkdraw.policies.sampling.operations import Operations

LENGTHS = torch.tensor([5, 3])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(random_janus(tmp_path_factory.mktemp("decoder") / "policy"))


def rebuilt(checkpoint: str, **changes: Any) -> JanusForConditionalGeneration:
    """Random weights in a language model with some settings changed."""
    config: Any = load_policy(checkpoint).model.config
    for name, value in changes.items():
        setattr(config.text_config, name, value)
    torch.manual_seed(0)
    model: Any = JanusForConditionalGeneration(config).eval()
    for name, parameter in model.model.language_model.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "norm" in name else 0.0, std=0.3)
    return model


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_key_value_heads": 1}, {"attention_bias": True, "mlp_bias": True}, {"hidden_act": "gelu"}],
    ids=["as it is", "grouped heads", "biases", "another activation"],
)
@pytest.mark.parametrize("shared", [False, True], ids=["", "shared prefix"])
@pytest.mark.parametrize("attention", ["torch's", "compiled"])
@torch.no_grad()
def test_a_prefix_and_single_tokens_give_the_hidden_states_of_one_pass(
    checkpoint, changes, attention, shared, monkeypatch
):
    model = rebuilt(checkpoint, **changes)
    hidden_size = model.config.get_text_config().hidden_size
    embeddings = torch.randn(2, 9, hidden_size)
    embeddings[1] = embeddings[0]  # both rows begin alike, as those with a shared prefix do
    embeddings[:, 5:] = torch.randn(2, 4, hidden_size)
    contexts = [torch.cat([embeddings[r, : LENGTHS[r]], embeddings[r, 5:]])[None] for r in range(2)]
    wanted = [functions.hidden_states(model, row)[:, -3:] for row in contexts]

    if attention == "torch's":
        monkeypatch.setattr(speed, "is_on", lambda: False)
    decoder = Decoder(model)
    if type(decoder.operations) is Operations and attention != "torch's":
        pytest.skip("no compiled attention here: policies/fast or a C++ compiler with OpenMP is missing")

    def read(cache: KVCache, embeddings: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        cache.begin_pass(positions, int(positions.max()) + 1)
        return decoder(embeddings, positions, cache)

    cache = decoder.new_cache(2, 20)
    if shared:
        prefix = cache.prefix_cache(0, 5)
        read(prefix, embeddings[:1, :5], torch.arange(5)[None])
        cache.share_prefix(prefix, 0, LENGTHS)
    else:  # the second row reads two tokens that are not its own, and later writes over them
        read(cache, embeddings[:, :5], torch.arange(5).repeat(2, 1))
    positions = LENGTHS[:, None] + torch.arange(4)
    for begin, end in ((0, 2), (2, 3), (3, 4)):  # two tokens at once, then one by one
        found = read(cache, embeddings[:, 5 + begin : 5 + end], positions[:, begin:end])
        for row in range(2):
            assert torch.allclose(found[row, -1], wanted[row][0, end - 2], atol=1e-4)


def test_adapters_are_sampled_with_while_they_are_on(checkpoint):
    policy = load_policy(checkpoint, lora=LoraSettings.model_validate({"rank": 2}))
    settings = sampling(guidance_scale=3.0)
    before = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    with torch.no_grad():
        for name, parameter in policy.network.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.3)
    after = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    assert difference(policy, after) <= tolerance(settings)
    with policy.reference():
        assert_same_rollouts(policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS), before)
    assert (after.log_probs.sum(1) - before.log_probs.sum(1)).abs().max() > 0.1
