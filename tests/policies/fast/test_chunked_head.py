"""What is read off a head a few tokens at a time is what all of them at once give."""

import pytest
import torch
from torch import nn

from thinkdraw.policies.fast.chunked_head import NEGLIGIBLE, read_off
from thinkdraw.policies.sampling.distribution import entropy_of, log_distribution


def read(part: slice, logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    log_probs = log_distribution(logits, temperature=1.0)
    return log_probs[:, 0], entropy_of(log_probs)


@pytest.mark.parametrize("at_once", [2, 8])
def test_no_number_that_a_cpu_is_slow_with_reaches_the_heads_products(at_once):
    # exp(−75) and less is nothing beside 1; exp(−95) is below the normal numbers of fp32. The head passes all on.
    logits = torch.tensor([[0.0, -2.0, -50.0, -75.0, -95.0, -300.0]]).repeat(8, 1).requires_grad_()
    head = nn.Linear(6, 6, bias=False)
    nn.init.eye_(head.weight)
    log_probs, entropy = read_off(read, head, at_once, logits)
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
