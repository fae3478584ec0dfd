"""The one door to `policies/fast`: what only makes sampling and learning faster, and saves memory, stands behind it.

Delete that folder, or set THINKDRAW_FAST=off in the environment, and everything here is plain torch and transformers:
slower, with larger logits in learning, and the same numbers up to rounding.
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
from thinkdraw.policies.janus import network
from thinkdraw.policies.sampling.operations import Operations
from thinkdraw.policies.sampling.steps import Steps

SWITCH = "THINKDRAW_FAST"
FOLDER = Path(__file__).with_name("fast")


def _is_there() -> bool:
    return any(FOLDER.glob("*.py"))


@cache
def is_on() -> bool:
    """Whether the folder is there and not switched off. Raises UserError where it is there in part."""
    choice = os.environ.get(SWITCH, "on")
    if choice not in ("on", "off"):
        raise UserError(f"{SWITCH}={choice}: unknown. Set it to on or off.")
    if choice == "off" or not _is_there():
        return False
    try:
        import thinkdraw.policies.fast  # noqa: F401  it imports all of its files
    except ImportError as error:
        raise UserError(
            f"{FOLDER} is incomplete ({error}). Restore it, delete it whole, or set {SWITCH}=off."
        ) from error
    return True


def operations(device: torch.device, dtype: torch.dtype, head_width: int) -> Operations:
    """What a decoder does beside products in `dtype`: by C++ on a CPU with a compiler, else by torch."""
    if is_on():
        from thinkdraw.policies.fast.cpu_operations import operations_for

        return operations_for(device, dtype, head_width) or Operations(device, dtype)
    if device.type == "cpu":
        _warn_of_slow_sampling()
    return Operations(device, dtype)


@cache
def _warn_of_slow_sampling() -> None:
    if not _is_there():
        warnings.warn("policies/fast is absent: sampling takes up to twice as long on this CPU.", stacklevel=4)


def decode_steps(device: torch.device, cuda_graphs: bool) -> Steps:
    """What runs decode steps: recorded as CUDA graphs on an NVIDIA GPU if `cuda_graphs`, else as they are."""
    if cuda_graphs and is_on():
        from thinkdraw.policies.fast.cuda_graphs import steps_for

        return steps_for(device) or Steps()
    return Steps()


def prepare_learning(model: PreTrainedModel) -> None:
    """Let the language model of a Janus learn faster on a CPU; its modules, names and weights stay."""
    if is_on():
        from thinkdraw.policies.fast import learning_layer, short_attention

        short_attention.use_short_attention(model)
        learning_layer.use_kernels(model)


def score_logits(score: Callable[..., tuple[Tensor, ...]], head: nn.Linear, *inputs: Tensor) -> tuple[Tensor, ...]:
    """What `score(part, *logits)` gives for all K tokens: a tuple of (K,) tensors.

    score: takes a slice of the tokens and for each of the inputs (K, H) their (k, V) float32 logits by `head`. All tokens
    are scored at once, or with the folder a few at a time, so that all their logits are never there together.
    """
    if is_on():
        from thinkdraw.policies.fast.chunked_head import score_in_chunks

        return score_in_chunks(score, head, *inputs)
    return score(slice(0, len(inputs[0])), *(network.logits_of(head, x) for x in inputs))


def max_logits() -> float:
    """How many logits of one head are there at once in learning, at most: for the planner."""
    if is_on():
        from thinkdraw.policies.fast.chunked_head import CHUNK_ELEMENTS

        return CHUNK_ELEMENTS
    return float("inf")


def decode_latents(decoder: nn.Module, latents: Tensor) -> Tensor:
    """Model pixels (B, 3, H, W) that the VQ decoder makes of latents (B, D, h, w)."""
    if is_on():
        from thinkdraw.policies.fast import channels_last

        return channels_last.decode_latents(decoder, latents)
    return decoder(latents)
