"""Integers that tell tensors apart bit by bit, computed on the tensors' device."""

from collections.abc import Mapping

import torch
from torch import Tensor

CHUNK = 1 << 22  # elements that are widened to int64 at once
INTEGERS = {
    1: torch.int8,
    2: torch.int16,
    4: torch.int32,
    8: torch.int64,
}  # bytes of an element → how its bits are read


def fingerprints(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Map each tensor's name to its fingerprint.

    Tensors of equal bits have equal fingerprints on any device; NaN and −0 are compared by their bits too.
    """
    return {name: fingerprint(tensor) for name, tensor in tensors.items()}


@torch.no_grad()
def fingerprint(tensor: Tensor) -> int:
    """Sum each element's bits times the odd number of its index, modulo 2⁶⁴.

    Integer sums do not depend on the order of addition, so every device gets the same. An odd factor is invertible modulo 2⁶⁴, so no
    change of a single element goes unseen.
    """
    total, factor = torch.zeros((), dtype=torch.int64, device=tensor.device), 1
    for chunk in tensor.detach().flatten().split(CHUNK):
        bits = chunk.contiguous().view(INTEGERS[chunk.itemsize]).long()
        total += (bits * torch.arange(factor, factor + 2 * len(bits), 2, device=tensor.device)).sum()
        factor += 2 * len(bits)
    return int(total)
