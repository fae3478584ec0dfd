"""The container of rollouts on their way from sampling to the loss."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from thinkdraw.objectives import Advantages, SegmentCounts, count_segments
from thinkdraw.objectives.token_weights import StageWeights
from thinkdraw.types import Rollouts, Verdicts


def split_rows(rows: Tensor, size: int) -> Iterator[Tensor]:
    """Split row indices into chunks of up to `size`, in order.

    No rows give no chunk, where `Tensor.split` gives an empty one.
    """
    yield from rows.split(size) if len(rows) else ()


@dataclass(frozen=True)
class Batch:
    """B rollouts of this process, and columns that judging and advantages add.

    A column is None until it is filled.
    verdicts: of the reward, on the CPU.
    advantages: (B,), and which rows are in the loss at all.
    token_weights: (B, T) each; what a token's advantage and its KL term are multiplied by.
    old_log_probs: (B, T) nats, of the policy before the phase's first step; for pairs, of the reference.
    groups: (B,) number of each row's group in the phase, counted over all processes.
    """

    rollouts: Rollouts
    verdicts: Verdicts | None = None
    advantages: Advantages | None = None
    token_weights: StageWeights | None = None
    old_log_probs: Tensor | None = None
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.rollouts)

    @property
    def group_size(self) -> int:
        """Rollouts per group."""
        return self.rollouts.group_size

    @property
    def rewards(self) -> Tensor:
        """(B,) on the CPU, NaN = no verdict."""
        assert self.verdicts is not None, "these rollouts are not judged yet"
        return self.verdicts.rewards

    def trained_mask(self) -> Tensor:
        """Compute the mask of trained tokens, (B, T) bool.

        It is the rollouts' mask, and False throughout in rows that are not in the loss.
        """
        mask = self.rollouts.mask
        return mask if self.advantages is None else mask & self.advantages.valid[:, None]

    def counts(self) -> SegmentCounts:
        """Count trained tokens and rows of this process."""
        return count_segments(self.trained_mask(), self.rollouts.is_image)

    # Splitting: a phase into minibatches, one per optimiser step; a minibatch into micro-batches, one per forward pass

    def select(self, rows: Tensor, group_size: int = 1) -> "Batch":
        """Select rows, in the order of `rows`.

        group_size: the batch's own if the rows are whole groups. With 1, columns of groups are dropped, such as which have
        no variance.
        """
        rollouts = self.rollouts.select(rows, group_size)
        length, weights = rollouts.tokens.shape[1], self.token_weights
        verdicts = None if self.verdicts is None else self.verdicts.select(rows.cpu())
        advantages = None if self.advantages is None else _select(self.advantages, rows, group_size)
        if advantages is not None and verdicts is not None:
            advantages = dataclasses.replace(advantages, num_no_verdict=int(verdicts.rewards.isnan().sum()))
        return Batch(
            rollouts,
            verdicts,
            advantages,
            None if weights is None else StageWeights(weights.advantage[rows, :length], weights.kl[rows, :length]),
            None if self.old_log_probs is None else self.old_log_probs[rows, :length],
            None if self.groups is None else self.groups[rows.cpu()],
        )

    def select_groups(self, chosen: Tensor) -> "Batch":
        """Select whole groups. chosen: (P,) bool."""
        rows = chosen.repeat_interleave(self.group_size).nonzero().flatten().cpu()
        return self.select(rows, self.group_size)

    @staticmethod
    def join(parts: "Sequence[Batch]") -> "Batch":
        """Join the rows of several batches, without token weights and old log-probs.

        These are made of whole phases, after their batches are joined.
        """
        if len(parts) == 1:
            return parts[0]
        verdicts = [part.verdicts for part in parts if part.verdicts is not None]
        advantages = [part.advantages for part in parts if part.advantages is not None]
        groups = [part.groups for part in parts if part.groups is not None]
        return Batch(
            Rollouts.join([part.rollouts for part in parts]),
            Verdicts.join(verdicts) if verdicts else None,
            _join(advantages) if advantages else None,
            groups=torch.cat(groups) if groups else None,
        )

    def minibatches(self, count: int, passes: int) -> "Iterator[Batch]":
        """Select the groups of each optimiser step; `passes` times through all of them.

        Group g is in minibatch g mod `count`, whichever process has it: any number of processes makes the same steps.
        """
        assert self.groups is not None, "only the numbered groups of a phase can be split into minibatches"
        group_numbers = self.groups[:: self.group_size]  # of each group's first row
        for number in [n for _ in range(passes) for n in range(count)]:
            yield self if count == 1 else self.select_groups((group_numbers % count) == number)

    def micro(self, rows: int) -> "Iterator[Batch]":
        """Split into micro-batches of up to `rows` rows.

        Rows that are not in the loss are left out, and the others sorted by length, so that little is padding.
        """
        trained = self._trained_rows()
        lengths = (self.rollouts.segment[trained] >= 0).sum(1) + self.rollouts.prompt_mask[trained].sum(1)
        for chosen in split_rows(trained[torch.argsort(lengths, stable=True)], rows):
            yield self.select(chosen)

    def num_micro(self, rows: int) -> int:
        """Count the micro-batches of `micro`."""
        return math.ceil(len(self._trained_rows()) / rows)

    def _trained_rows(self) -> Tensor:
        if self.advantages is None:
            return torch.arange(len(self), device=self.rollouts.tokens.device)
        return self.advantages.valid.nonzero().flatten()

    def to(self, device: torch.device | str) -> "Batch":
        """Move the columns that a loss reads to a device; verdicts and groups stay."""
        weights = self.token_weights
        return dataclasses.replace(
            self,
            rollouts=self.rollouts.to(device),
            advantages=None if self.advantages is None else _moved(self.advantages, device),
            token_weights=None if weights is None else StageWeights(*(w.to(device) for w in weights)),
            old_log_probs=None if self.old_log_probs is None else self.old_log_probs.to(device),
        )


def _select(advantages: Advantages, rows: Tensor, group_size: int) -> Advantages:
    """Select advantages of some rows; of groups too, if the rows are whole groups."""
    a = advantages
    rows = rows.to(a.values.device)
    num_groups = len(a.zero_variance)
    size = len(a.values) // max(1, num_groups)
    of_group = rows[::size] // size if group_size == size and num_groups else rows[:0]
    flat, dropped = a.zero_variance[of_group], a.dropped[of_group]
    valid = a.valid[rows]
    return Advantages(a.values[rows], valid, flat, dropped, 0, int(flat.sum()), int(dropped.sum()))


def _join(parts: Sequence[Advantages]) -> Advantages:
    def cat(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    return Advantages(
        cat("values"), cat("valid"), cat("zero_variance"), cat("dropped"),
        sum(part.num_no_verdict for part in parts), sum(part.num_zero_variance_groups for part in parts),
        sum(part.num_dropped_groups for part in parts),
    )  # fmt: skip


def _moved(advantages: Advantages, device: torch.device | str) -> Advantages:
    a = advantages
    return dataclasses.replace(
        a, values=a.values.to(device), valid=a.valid.to(device), zero_variance=a.zero_variance.to(device),
        dropped=a.dropped.to(device),
    )  # fmt: skip
