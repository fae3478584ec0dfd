"""The pieces of rollouts: segments, contexts, and the allowed tokens.

Shape letters: B rollouts, L tokens of a context, T tokens of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """A stretch of a row.

    kind: a text, (part of) a picture that the policy drew, or a picture that it was shown.
    picture: which of the row's pictures it belongs to, counted in order of their begin; −1 for a text.
    context: which of `Rollouts.contexts` it is written in, after everything written there before it.
    """

    kind: Literal["text", "drawn", "shown"]
    picture: int = -1
    context: int = 0


@dataclass(frozen=True)
class Context:
    """The tokens that a segment follows.

    ids: (B, L), right-padded.
    mask: (B, L) bool, True = real; all False in a row that does not have this context.
    """

    ids: Tensor
    mask: Tensor

    def select(self, rows: Tensor) -> "Context":
        """Select rows."""
        return Context(self.ids[rows], self.mask[rows])

    def to(self, device: torch.device | str) -> "Context":
        """Move both tensors to a device."""
        return Context(self.ids.to(device), self.mask.to(device))

    @staticmethod
    def blank(num_rows: int, pad_id: int, device: torch.device) -> "Context":
        """Make a context that no row has."""
        ids = torch.full((num_rows, 1), pad_id, device=device)
        return Context(ids, torch.zeros_like(ids, dtype=torch.bool))

    @staticmethod
    def join(parts: "Sequence[Context]", pad_id: int) -> "Context":
        """Join the rows of several contexts, padded to the longest."""
        return Context(join_padded([p.ids for p in parts], pad_id), join_padded([p.mask for p in parts], False))


@dataclass(frozen=True)
class AllowedTokens:
    """The tokens that top-k or top-p left to sample from, as compressed sparse rows.

    indices: (K,) int32, one token's allowed ids after another's, row by row, ascending within a token.
    counts: (B, T) int32, how many of `indices` belong to each token; 0 where nothing was cut.
    """

    indices: Tensor
    counts: Tensor

    def select(self, rows: Tensor, length: int) -> "AllowedTokens":
        """Select rows, whose tokens from `length` on are padding and have no entries."""
        ends = torch.cumsum(self.counts.flatten().long(), 0).reshape(self.counts.shape)[:, -1]
        begins = ends - self.counts.sum(1)
        parts = [self.indices[int(begins[row]) : int(ends[row])] for row in as_ints(rows)]
        return AllowedTokens(torch.cat(parts) if parts else self.indices[:0], self.counts[rows, :length])

    def to(self, device: torch.device | str) -> "AllowedTokens":
        """Move both tensors to a device."""
        return AllowedTokens(self.indices.to(device), self.counts.to(device))

    @staticmethod
    def none(tokens: Tensor) -> "AllowedTokens":
        """Describe tokens (B, T) whose distributions were not cut."""
        counts = torch.zeros(tokens.shape, dtype=torch.int32, device=tokens.device)
        return AllowedTokens(counts.flatten()[:0], counts)

    @staticmethod
    def join(parts: "Sequence[AllowedTokens]") -> "AllowedTokens":
        """Join the rows of several batches."""
        return AllowedTokens(
            torch.cat([part.indices for part in parts]), join_padded([part.counts for part in parts], 0)
        )


def join_padded(parts: Sequence[Tensor], fill: int | bool) -> Tensor:
    """Join the rows of (B, width) tensors, filled on the right to the widest."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([F.pad(part, (0, width - part.shape[1]), value=fill) for part in parts])


def as_ints(values: Tensor) -> list[int]:
    """Convert a (K,) tensor of whole numbers to a list.

    torch's `tolist` has no type that a checker knows.
    """
    return cast(list[int], values.cpu().numpy().tolist())
