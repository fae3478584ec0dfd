"""Numbers that tell tensors apart bit by bit, computed where the tensors are: no copy of them travels to be compared."""

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
    """An integer for each tensor, that of equal bits the same on any device, NaN and −0 by their bits too."""
    return {name: fingerprint(tensor) for name, tensor in tensors.items()}


@torch.no_grad()
def fingerprint(tensor: Tensor) -> int:
    """Sum the bits of each element times the odd number of its place, modulo 2⁶⁴: integers add up alike in any order."""
    total, place = torch.zeros((), dtype=torch.int64, device=tensor.device), 1
    for part in tensor.detach().flatten().split(CHUNK):
        bits = part.contiguous().view(INTEGERS[part.itemsize]).long()
        total += (bits * torch.arange(place, place + 2 * len(bits), 2, device=tensor.device)).sum()
        place += 2 * len(bits)
    return int(total)
