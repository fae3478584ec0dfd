"""Linear heads, which make logits in fp32 whatever the dtype of their weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def fp32_linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply in fp32, outside of autocast: (..., H) to (..., V) float32.

    bf16 logits would be off by up to 0.4 %, differently in a decode step and in a training pass, and guidance
    multiplies that error.
    """
    with torch.autocast(inputs.device.type, enabled=False):
        return F.linear(inputs.float(), weight.float(), None if bias is None else bias.float())


def in_fp32(head: nn.Linear) -> nn.Linear:
    """Return a head with fp32 weights and no gradient.

    It is for many calls with the same weights. Weights that are fp32 already are shared, not copied.
    """
    with torch.device("meta"):
        cast = nn.Linear(head.in_features, head.out_features, bias=head.bias is not None)
    cast.weight = nn.Parameter(head.weight.detach().float(), requires_grad=False)
    if head.bias is not None:
        cast.bias = nn.Parameter(head.bias.detach().float(), requires_grad=False)
    return cast
