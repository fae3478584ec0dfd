"""A few logits at a time give the values and gradients of all at once, in less memory."""

from unittest import mock

import pytest
import torch
from tests.allocator import peak_bytes
from tests.policies.suite import PROMPTS, sampling
from torch import Tensor, nn

from thinkdraw.policies.fast import chunked_head
from thinkdraw.policies.fast.chunked_head import NEGLIGIBLE, score_in_chunks
from thinkdraw.policies.sampling.distribution import entropy_of, log_distribution


def read(part: slice, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    log_probs = log_distribution(logits, temperature=1.0)
    return log_probs[:, 0], entropy_of(log_probs)


@pytest.mark.parametrize("at_once", [2, 8])
def test_no_number_that_a_cpu_is_slow_with_reaches_the_heads_products(at_once, monkeypatch):
    # exp(−75) and less is nothing beside 1; exp(−95) is below the normal numbers of fp32. The head passes all on.
    logits = torch.tensor([[0.0, -2.0, -50.0, -75.0, -95.0, -300.0]]).repeat(8, 1).requires_grad_()
    head = nn.Linear(6, 6, bias=False)
    nn.init.eye_(head.weight)
    monkeypatch.setattr(chunked_head, "CHUNK_ELEMENTS", 6 * at_once)
    log_probs, entropy = score_in_chunks(read, head, logits)
    (log_probs.sum() + entropy.sum()).backward()
    exact = logits.detach().double().requires_grad_()
    expected = exact.log_softmax(-1)
    (expected[:, 0].sum() - (expected.exp() * expected).sum()).backward()
    kept = exact.grad.abs() > NEGLIGIBLE
    assert kept.sum(1).tolist() == [3] * 8
    torch.testing.assert_close(logits.grad[kept].double(), exact.grad[kept], rtol=1e-5, atol=0)
    assert logits.grad[~kept].eq(0).all()
    weights = head.weight.grad
    assert weights[weights != 0].abs().min() > torch.finfo(torch.float32).tiny


def test_an_entropy_is_that_of_a_double_however_sharp_the_distribution():
    logits = torch.linspace(0, -400, 300)[None].repeat(4, 1) * torch.tensor([0.01, 0.3, 1.0, 3.0])[:, None]
    expected = torch.distributions.Categorical(logits=logits.double()).entropy()
    torch.testing.assert_close(entropy_of(logits.log_softmax(-1)).double(), expected, rtol=1e-5, atol=1e-30)


def head_and_inputs(tokens: int, width: int, vocabulary: int) -> tuple[nn.Linear, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(width, vocabulary), torch.randn(tokens, width, requires_grad=True)


def chosen_and_entropy(part: slice, logits: Tensor) -> tuple[Tensor, Tensor]:
    log_probs = logits.log_softmax(-1)
    return log_probs[:, 3], -(log_probs.exp() * log_probs).sum(-1)


def score_and_backward(head: nn.Linear, inputs: Tensor, size: int) -> tuple[Tensor, Tensor]:
    with mock.patch.object(chunked_head, "CHUNK_ELEMENTS", size * head.out_features):
        values = score_in_chunks(chosen_and_entropy, head, inputs)
    (values[0].sum() + 0.5 * values[1].sum()).backward()
    return values[0].detach(), values[1].detach()


def test_a_head_read_in_chunks_gives_the_values_and_gradients_of_one_pass():
    head, inputs = head_and_inputs(tokens=50, width=8, vocabulary=40)
    found = {}
    for size in (50, 7):  # 7 chunks of 7 and one of 1
        head.zero_grad()
        inputs.grad = None
        values = score_and_backward(head, inputs, size)
        assert head.weight.grad is not None and head.bias.grad is not None and inputs.grad is not None
        found[size] = (*values, head.weight.grad.clone(), head.bias.grad.clone(), inputs.grad.clone())
    for whole, chunks in zip(found[50], found[7]):
        torch.testing.assert_close(chunks, whole, atol=1e-6, rtol=1e-6)


def test_a_head_whose_weight_is_frozen_gets_no_gradient_and_the_inputs_the_same():
    head, inputs = head_and_inputs(tokens=20, width=8, vocabulary=40)
    score_and_backward(head, inputs, 20)
    whole, inputs.grad = inputs.grad, None
    head.zero_grad()
    head.requires_grad_(False)
    score_and_backward(head, inputs, 6)
    assert head.weight.grad is None
    torch.testing.assert_close(inputs.grad, whole, atol=1e-6, rtol=1e-6)


def test_chunks_hold_a_part_of_the_logits_and_one_gradient_of_the_weight():
    # 512 tokens × 2048 entries × 4 bytes = 4.2 MB of logits, several times over in one pass; 16 tokens are 0.13 MB.
    head, inputs = head_and_inputs(tokens=512, width=8, vocabulary=2048)
    whole, chunks = (peak_bytes(lambda size=size: score_and_backward(head, inputs, size)) for size in (512, 16))
    assert whole > 4 * 512 * 2048 * 4 and chunks < 8 * 16 * 2048 * 4
    # The weight is 2048 × 256 × 4 bytes = 2.1 MB: 8 chunks must not each make a gradient before they are added.
    head, inputs = head_and_inputs(tokens=64, width=256, vocabulary=2048)
    assert peak_bytes(lambda: score_and_backward(head, inputs, 8)) < 1.5 * 2048 * 256 * 4


@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_many_chunks_of_logits_give_the_numbers_and_the_gradient_of_one(policy, thought, monkeypatch):
    rollouts = policy.sample(PROMPTS, sampling(thought, guidance_scale=3.0), decode=False)

    def values_and_gradient():
        policy.model.zero_grad()
        scored = policy.log_probs(rollouts)
        (scored.log_probs.sum() + scored.entropy.sum()).backward()
        return scored.log_probs.detach(), policy.model.model.generation_head.proj_out.weight.grad.clone()

    whole = values_and_gradient()
    monkeypatch.setattr(chunked_head, "CHUNK_ELEMENTS", 64 * 5)  # 5 image tokens, 1 text token at a time
    chunked = values_and_gradient()
    torch.testing.assert_close(whole[0], chunked[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(whole[1], chunked[1], atol=1e-3, rtol=1e-4)
