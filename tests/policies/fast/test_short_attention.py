"""Attention in learning from short sequences is torch's."""

import pytest
import torch
from torch import Tensor, nn

from thinkdraw.policies.fast.short_attention import attend

ROWS, LENGTH, WIDTH = 3, 20, 16


class _Layer(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups, self.is_causal = groups, True


def hidden_pads() -> Tensor:
    """(ROWS, 1, LENGTH, LENGTH) bool: causal, and the last row's first five tokens are pads."""
    seen = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril().repeat(ROWS, 1, 1, 1)
    seen[2, :, 5:, :5] = False
    return seen


@pytest.mark.parametrize("mask", ["none", "bool", "numbers"])
@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16 autocast"])
def test_it_finds_what_torch_does_and_so_do_its_gradients(precision, key_heads, mask):
    torch.manual_seed(0)
    query = torch.randn(ROWS, 4, LENGTH, WIDTH, requires_grad=True)
    key, value = (torch.randn(ROWS, key_heads, LENGTH, WIDTH, requires_grad=True) for _ in range(2))
    seen = hidden_pads()
    added = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    given = {"none": None, "bool": seen, "numbers": added}[mask]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision != "fp32"):
        found, _ = attend(_Layer(4 // key_heads), query, key, value, given, scaling=0.3)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), attn_mask=None if given is None else seen, is_causal=given is None,
        scale=0.3, enable_gqa=True,
    ).transpose(1, 2)  # fmt: skip
    direction = torch.randn(wanted.shape, dtype=torch.double)
    pairs = [(found.double(), wanted)]
    pairs += zip(*(torch.autograd.grad((x.double() * direction).sum(), (query, key, value)) for x in (found, wanted)))
    for ours, theirs in pairs:
        assert float((ours - theirs).norm() / theirs.norm()) < (1e-5 if precision == "fp32" else 2e-2)
