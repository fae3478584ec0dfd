"""Tokens scored by a linear head's logits a few at a time, so that the logits of all are never there at once.

`torch.utils.checkpoint` around each part would not do: every part's backward pass makes a whole gradient of the head's
weight, 0.8 GB in fp32 for Janus-Pro-1B's text head, before they are added up. Here the parts add to one.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Score = Callable[..., tuple[Tensor, ...]]

CHUNK_ELEMENTS = 1 << 24  # logits of one head that are there at once
# CPUs multiply numbers below 1.2e-38 a hundred times slower, and guidance makes many: its distributions are sharp.
NEGLIGIBLE = 1e-30  # a logit's gradient that is taken as 0


def score_in_chunks(score: Score, head: nn.Linear, *inputs: Tensor) -> tuple[Tensor, ...]:
    """See `speed.score_logits`; of at most CHUNK_ELEMENTS logits at once.

    Gradients are those of one pass over all tokens; the backward pass computes the logits of each chunk again.
    """
    size = max(1, CHUNK_ELEMENTS // head.out_features)
    if len(inputs[0]) <= size:
        return score(slice(0, len(inputs[0])), *(_logits(x, head.weight, head.bias) for x in inputs))
    scores: Any = _Chunks.apply(score, size, head.weight, head.bias, *inputs)
    return scores


def _logits(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # The heads leave autocast: bf16 logits are off by up to 0.4 %, and guidance multiplies that.
    with torch.autocast(inputs.device.type, enabled=False):
        logits = F.linear(inputs.to(weight.dtype), weight, bias).float()
    if logits.requires_grad:
        logits.register_hook(lambda gradient: F.hardshrink(gradient, NEGLIGIBLE))
    return logits


class _Chunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, score: Score, size: int, weight: Tensor, bias: Tensor | None, *inputs: Tensor) -> Any:
        ctx.score, ctx.size = score, size
        ctx.save_for_backward(weight, bias, *inputs)
        ctx.set_materialize_grads(False)
        values = []
        for part in _split(inputs[0], size):
            scores = score(part, *(_logits(x[part], weight, bias) for x in inputs))
            values.append([value.clone() for value in scores])  # a view would keep all logits
        return tuple(torch.cat(column) for column in zip(*values))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        weight, bias, *inputs = ctx.saved_tensors
        needs_weight, needs_bias = ctx.needs_input_grad[2:4]
        of_weight = torch.zeros_like(weight) if needs_weight else None
        of_bias = torch.zeros_like(bias) if needs_bias else None
        of_inputs = [torch.empty_like(x) for x in inputs]
        for part in _split(inputs[0], ctx.size):
            logits = [_logits(x[part], weight, bias).requires_grad_() for x in inputs]
            with torch.enable_grad():
                values = ctx.score(part, *logits)
            known = [(v, g[part]) for v, g in zip(values, gradients) if g is not None]
            for gradient, x, of_input in zip(_backward(known, logits), inputs, of_inputs):
                gradient = F.hardshrink(gradient, NEGLIGIBLE).to(weight.dtype)
                of_input[part] = gradient @ weight
                if of_weight is not None:
                    of_weight.addmm_(gradient.T, x[part].to(weight.dtype))
                if of_bias is not None:
                    of_bias += gradient.sum(0)
        return None, None, of_weight, of_bias, *of_inputs


def _backward(known: list[tuple[Tensor, Tensor]], logits: list[Tensor]) -> tuple[Tensor, ...]:
    values, gradients = zip(*known)
    return torch.autograd.grad(values, logits, gradients)


def _split(inputs: Tensor, size: int) -> list[slice]:
    return [slice(begin, begin + size) for begin in range(0, len(inputs), size)]
