"""The choice between plain torch and the faster code in `policies/fast`.

Nothing else imports that folder. If you delete it, or set THINKDRAW_FAST=off in the environment, each function here
runs plain torch and transformers. That is slower, and learning then has all logits in memory at once. The numbers
are the same up to rounding.
"""

import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from thinkdraw.errors import UserError
from thinkdraw.policies.heads import fp32_linear
from thinkdraw.policies.sampling.operations import Operations
from thinkdraw.policies.sampling.steps import Steps

SWITCH = "THINKDRAW_FAST"
FOLDER = Path(__file__).with_name("fast")


def _fast_exists() -> bool:
    """Whether `policies/fast` has not been deleted."""
    return any(FOLDER.glob("*.py"))


@cache
def is_on() -> bool:
    """Whether to use `policies/fast`: it exists and is not switched off.

    Raises UserError where some of it is missing.
    """
    choice = os.environ.get(SWITCH, "on")
    if choice not in ("on", "off"):
        raise UserError(f"{SWITCH}={choice} is unknown. Set it to on or off.")
    if choice == "off" or not _fast_exists():
        return False
    try:
        import thinkdraw.policies.fast  # noqa: F401  it imports all of its files, so a missing one shows here
    except ImportError as error:
        raise UserError(
            f"{FOLDER} is incomplete ({error}). Restore it, delete all of it, or set {SWITCH}=off."
        ) from error
    return True


def operations(device: torch.device, dtype: torch.dtype, head_width: int) -> Operations:
    """Choose what runs a decode step's RMSNorm, gate and KV cache.

    On a CPU with a compiler it is C++, else torch.
    dtype: that the decoder multiplies matrices in.
    head_width: numbers in a key of the KV cache.
    """
    if is_on():
        from thinkdraw.policies.fast.cpu_operations import operations_for

        return operations_for(device, dtype, head_width) or Operations(device, dtype)
    if device.type == "cpu":
        _warn_of_slow_sampling()
    return Operations(device, dtype)


@cache
def _warn_of_slow_sampling() -> None:
    """Warn once if `policies/fast` was deleted; to switch it off is a choice."""
    if not _fast_exists():
        warnings.warn("policies/fast is absent: sampling takes up to twice as long on this CPU.", stacklevel=4)


def decode_steps(device: torch.device, cuda_graphs: bool) -> Steps:
    """Choose what runs decode steps: CUDA graphs on an NVIDIA GPU, else plain calls."""
    if cuda_graphs and is_on():
        from thinkdraw.policies.fast.cuda_graphs import steps_for

        return steps_for(device) or Steps()
    return Steps()


def prepare_learning(model: PreTrainedModel) -> None:
    """Make training passes of Janus's language model faster on a CPU.

    Its modules, their names and the weights stay.
    """
    if is_on():
        from thinkdraw.policies.fast import learning_layer, short_attention

        short_attention.use_short_attention(model)
        learning_layer.use_kernels(model)


def score_logits(score: Callable[..., tuple[Tensor, ...]], head: nn.Linear, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Score K tokens by the logits that `head` makes of their inputs.

    Returns a tuple of (K,) tensors. With `policies/fast`, `score` runs on a few tokens at a time, so that the
    logits of all are never in memory together. Without, it runs once for all.
    inputs: (K, H) each, what `head` makes logits of.
    score: (slice of the tokens, (k, V) float32 logits of each of the inputs) → tuple of (k,) tensors.
    """
    if is_on():
        from thinkdraw.policies.fast.chunked_head import score_in_chunks

        return score_in_chunks(score, head, *inputs)
    return score(slice(0, len(inputs[0])), *(fp32_linear(x, head.weight, head.bias) for x in inputs))


def max_logits() -> float:
    """Return the most logits of one head that learning holds at once, for the planner."""
    if is_on():
        from thinkdraw.policies.fast.chunked_head import CHUNK_ELEMENTS

        return CHUNK_ELEMENTS
    return float("inf")


def decode_latents(decoder: nn.Module, latents: Tensor) -> Tensor:
    """Run the VQ decoder: latents (B, D, h, w) to pixels (B, 3, H, W)."""
    if is_on():
        from thinkdraw.policies.fast import channels_last

        return channels_last.decode_latents(decoder, latents)
    return decoder(latents)
