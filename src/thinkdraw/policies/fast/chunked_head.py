"""Scoring tokens by a linear head's logits, a few tokens at a time.

So the logits of all tokens never exist at once. `torch.utils.checkpoint` around each chunk would not do: every
chunk's backward pass makes a whole gradient of the head's weight, 0.8 GB in fp32 for Janus-Pro-1B's text head,
before they are added up. Here all chunks add to one gradient.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from thinkdraw.policies.heads import fp32_linear

Score = Callable[..., tuple[Tensor, ...]]

CHUNK_ELEMENTS = 1 << 24  # logits of one head in memory at once
# CPUs multiply denormal numbers, below 1.2e-38, a hundred times slower. Guidance makes many of them, because its
# distributions are sharp.
NEGLIGIBLE = 1e-30  # a logit's gradient below this counts as 0


def score_in_chunks(score: Score, head: nn.Linear, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Score tokens with at most CHUNK_ELEMENTS logits at once.

    See `speed.score_logits`.

    Gradients are those of one pass over all tokens. The backward pass computes each chunk's logits again.
    """
    size = max(1, CHUNK_ELEMENTS // head.out_features)
    if len(inputs[0]) <= size:
        return score(slice(0, len(inputs[0])), *(_logits(x, head.weight, head.bias) for x in inputs))
    scores: Any = _Chunks.apply(score, size, head.weight, head.bias, *inputs)
    return scores


def _logits(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute the head's float32 logits of (K, H) inputs; see `fp32_linear`."""
    logits = fp32_linear(inputs, weight, bias)
    if logits.requires_grad:
        logits.register_hook(lambda gradient: F.hardshrink(gradient, NEGLIGIBLE))
    return logits


class _Chunks(torch.autograd.Function):
    """Autograd function of `score_in_chunks`."""

    @staticmethod
    def forward(ctx: Any, score: Score, size: int, weight: Tensor, bias: Tensor | None, *inputs: Tensor) -> Any:
        """Score the chunks one after another, and keep no logits."""
        ctx.score, ctx.size = score, size
        ctx.save_for_backward(weight, bias, *inputs)
        ctx.set_materialize_grads(False)
        # Weights of another dtype are cast once for all chunks. The copy is dropped again: it is twice as large as them.
        weight, bias = weight.float(), None if bias is None else bias.float()
        values = []
        for chunk in _split(inputs[0], size):
            scores = score(chunk, *(_logits(x[chunk], weight, bias) for x in inputs))
            values.append([value.clone() for value in scores])  # a view would keep the chunk's logits alive
        return tuple(torch.cat(column) for column in zip(*values))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        """Compute each chunk's logits again, and add its gradients."""
        stored_weight, stored_bias, *inputs = ctx.saved_tensors
        weight, bias = stored_weight.float(), None if stored_bias is None else stored_bias.float()
        needs_weight, needs_bias = ctx.needs_input_grad[2:4]
        # Chunks add up in fp32, as the head multiplies: bf16 sums would lose what a chunk adds to many before it.
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        grad_bias = torch.zeros_like(bias) if bias is not None and needs_bias else None
        grad_inputs = [torch.empty_like(x) for x in inputs]
        for chunk in _split(inputs[0], ctx.size):
            logits = [_logits(x[chunk], weight, bias).requires_grad_() for x in inputs]
            with torch.enable_grad():
                values = ctx.score(chunk, *logits)
            known = [(v, g[chunk]) for v, g in zip(values, gradients) if g is not None]
            for gradient, x, grad_input in zip(_backward(known, logits), inputs, grad_inputs):
                gradient = F.hardshrink(gradient, NEGLIGIBLE)
                grad_input[chunk] = (gradient @ weight).to(x.dtype)
                if grad_weight is not None:
                    grad_weight.addmm_(gradient.T, x[chunk].float())
                if grad_bias is not None:
                    grad_bias += gradient.sum(0)
        grad_weight = None if grad_weight is None else grad_weight.to(stored_weight.dtype)
        grad_bias = None if grad_bias is None else grad_bias.to(stored_weight.dtype)
        return None, None, grad_weight, grad_bias, *grad_inputs


def _backward(known: list[tuple[Tensor, Tensor]], logits: list[Tensor]) -> tuple[Tensor, ...]:
    """Backpropagate from the scores with a gradient to the logits."""
    values, gradients = zip(*known)
    return torch.autograd.grad(values, logits, gradients)


def _split(inputs: Tensor, size: int) -> list[slice]:
    """Split the rows of `inputs` into slices of up to `size`."""
    return [slice(begin, begin + size) for begin in range(0, len(inputs), size)]
