"""The decoding loop over matrices computes what transformers' modules do, whatever stands in them."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import JanusForConditionalGeneration

from thinkdraw.policies import load_policy, network
from thinkdraw.policies.arena import Arena
from thinkdraw.policies.cache import SlotCache, Way
from thinkdraw.policies.cached_attention import kernel_for
from thinkdraw.policies.decoder import Decoder
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.tiny import random_janus

from .suite import PROMPTS, SEEDS, TOLERANCE, assert_same_rollouts, difference, sampling

CPU = torch.device("cpu")
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
@pytest.mark.parametrize("attention", ["torch's", "compiled", "compiled, on a stem"])
@torch.no_grad()
def test_a_prefix_and_single_tokens_give_the_hidden_states_of_one_pass(checkpoint, changes, attention):
    model = rebuilt(checkpoint, **changes)
    hidden_size = model.config.get_text_config().hidden_size
    embeddings = torch.randn(2, 9, hidden_size)
    embeddings[1] = embeddings[0]  # both rows begin alike, as those on one stem do
    embeddings[:, 5:] = torch.randn(2, 4, hidden_size)
    contexts = [torch.cat([embeddings[r, : LENGTHS[r]], embeddings[r, 5:]])[None] for r in range(2)]
    wanted = [network.hidden_states(model, row)[:, -3:] for row in contexts]

    decoder = Decoder(model)
    kernel = None if attention == "torch's" else kernel_for(CPU, torch.float32, decoder.shape.width)
    if kernel is None and attention != "torch's":
        pytest.skip("no C++ compiler with OpenMP here")

    def blank(slots: int, columns: int) -> Way:
        return Way.blank(Arena(), decoder.shape, slots, columns, torch.float32, CPU, kernel)

    context = blank(1, 5)
    cache = SlotCache(context)
    cache.open(torch.ones(1, 5, dtype=torch.bool))
    decoder(embeddings[:1, :5], torch.arange(5)[None], cache)
    way = blank(2, 20)
    if "stem" in attention:
        way.stand_on(context.layers, LENGTHS)
    else:
        way.fill(context.layers, torch.zeros(2, dtype=torch.long), LENGTHS)
    cache = SlotCache(way)
    positions = LENGTHS[:, None] + torch.arange(4)
    for begin, end in ((0, 2), (2, 3), (3, 4)):  # two tokens at once, then one by one
        cache.open(torch.ones(2, end - begin, dtype=torch.bool))
        found = decoder(embeddings[:, 5 + begin : 5 + end], positions[:, begin:end], cache)
        cache.close(end - begin)
        for row in range(2):
            assert torch.allclose(found[row, -1], wanted[row][0, end - 2], atol=1e-4)


def test_adapters_are_sampled_with_while_they_are_on(checkpoint):
    policy = load_policy(checkpoint, lora=LoraSettings.model_validate({"rank": 2}))
    settings = sampling(guidance_scale=3.0)
    before = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    with torch.no_grad():
        for name, parameter in policy.scorer.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.3)
    after = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    assert difference(policy, after) <= TOLERANCE
    with policy.reference():
        assert_same_rollouts(policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS), before)
    assert (after.log_probs.sum(1) - before.log_probs.sum(1)).abs().max() > 0.1
