"""Both heads multiply in fp32, in sampler and scorer alike, whatever the dtype of their weights."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from tests.policies.suite import PROMPTS, SEEDS, sampling
from torch import nn

from thinkdraw.policies import load_policy
from thinkdraw.policies.fast import chunked_head
from thinkdraw.policies.heads import fp32_linear, in_fp32
from thinkdraw.policies.janus.functions import Heads
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.lora import LoraSettings


def janus(checkpoint: Path, **options: Any) -> JanusPolicy:
    policy = load_policy(checkpoint, **options)
    assert isinstance(policy, JanusPolicy)
    return policy


@pytest.mark.parametrize("autocast", [False, True])
def test_bf16_weights_give_the_logits_of_an_fp32_product(checkpoint, autocast):
    policy, upcast = (janus(checkpoint, dtype="bf16") for _ in range(2))
    own, exact = Heads.of(policy.model), Heads.of(upcast.model.float())
    hidden = torch.randn(5, 64, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        for heads in (own, own.in_fp32()):
            features = heads.image_features(hidden)
            logits = heads.text_logits(hidden), features, heads.image_logits(features)
            expected = exact.text_logits(hidden), exact.image_features(hidden), exact.image_logits(features)
            assert all(torch.equal(x, y) and x.dtype == torch.float32 for x, y in zip(logits, expected))
    # bf16 has 8 bits: a product in it would be off by up to 0.4 % of the largest logits
    rounded = F.linear(hidden, policy.model.lm_head.weight).float()
    assert (rounded - logits[0]).abs().max() > 1e-3


def test_fp32_weights_are_shared_and_not_copied(checkpoint):
    head = janus(checkpoint).model.lm_head
    assert in_fp32(head).weight.data_ptr() == head.weight.data_ptr()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("lora", [None, LoraSettings.model_validate({"rank": 2})])
def test_scores_with_bf16_weights_are_those_of_an_exact_head_in_chunks_too(checkpoint, precision, lora, monkeypatch):
    policy = janus(checkpoint, dtype="bf16", precision=precision, lora=lora)
    rollouts = policy.sample(PROMPTS, sampling("inline", guidance_scale=5.0), group_size=2, seeds=SEEDS, decode=False)
    inputs: list[torch.Tensor] = []

    def exact(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        inputs.append(x)
        return F.linear(x.double(), weight.double(), None if bias is None else bias.double()).float()

    def scored(at_once: int) -> torch.Tensor:
        monkeypatch.setattr(chunked_head, "CHUNK_ELEMENTS", at_once)
        with torch.no_grad():
            return policy.log_probs(rollouts).log_probs

    whole, chunks = scored(1 << 24), scored(64 * 5)
    with mock.patch("thinkdraw.policies.fast.chunked_head.fp32_linear", exact):
        expected = scored(1 << 24)
    assert (whole - expected).abs().max() < 1e-4 and (chunks - expected).abs().max() < 1e-4
    # Guided features are in fp32, text's hidden states in the weights' dtype.
    assert {x.dtype for x in inputs} == {torch.float32, torch.bfloat16}


def test_chunks_of_a_bf16_head_add_up_their_gradient_in_fp32(monkeypatch):
    torch.manual_seed(0)
    head, inputs = nn.Linear(8, 40).bfloat16(), torch.randn(400, 8, requires_grad=True)

    def gradient(at_once: int) -> torch.Tensor:
        monkeypatch.setattr(chunked_head, "CHUNK_ELEMENTS", at_once * 40)
        head.zero_grad()
        (values,) = chunked_head.score_in_chunks(lambda part, logits: (logits.log_softmax(-1)[:, 3],), head, inputs)
        values.sum().backward()
        assert head.weight.grad is not None and head.weight.grad.dtype == torch.bfloat16
        return head.weight.grad.float()

    exact = torch.autograd.grad(
        fp32_linear(inputs, (weight := head.weight.detach().float().requires_grad_()), head.bias)
        .log_softmax(-1)[:, 3]
        .sum(),
        weight,
    )[0]
    for at_once in (400, 4):  # at 4 there are 100 chunks to add up
        torch.testing.assert_close(gradient(at_once), exact, rtol=2**-8, atol=1e-5)
