"""Rollouts: what a policy sampled, as rows of segments.

A segment is a text, a picture or part of one that the policy drew, or a picture that it was shown.
Shape letters: P prompts, G group size, B = P·G rollouts, L prompt tokens, T tokens of a row, N image tokens.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from thinkdraw.types.prompts import Prompt
from thinkdraw.types.sampling import Sampling
from thinkdraw.types.segments import AllowedTokens, Context, Segment, as_ints, join_padded


@dataclass(frozen=True)
class Rollouts:
    """B rollouts, prompt-major in groups of `group_size`.

    The prompt's context is not trained on: prompt_ids (B, L), right-padded, and prompt_mask (B, L), True = real.
    What follows lies on the *token axis* (B, T): texts and pictures in the order they were written, right-padded.

    tokens: int64.
    is_image: bool.
    segment: int8, index of the token's segment, −1 = padding.
    mask: bool, True = chosen by the policy and trained; False where a token was forced or shown.
    log_probs: float32 nats in the distribution sampled from; 0 where mask is False.
    allowed: the tokens that top-k or top-p left to sample from; None where nothing was cut.
    fresh_contexts: contexts besides the prompt's, such as the rewritten prompt before a `rewrite` picture.
    segments: describes each row's segments. () where a segment is a text in the prompt's context or a whole
        picture; then the picture is in the fresh context if there is one.
    seeds: (B,) int64; a rollout's noise follows from its seed.
    revision: of the policy that sampled.
    pictures: (B, H, W, 3) uint8, each row's last picture, or None.
    thoughts: B texts that the policy wrote, or ().
    """

    prompts: tuple[Prompt, ...]
    prompt_ids: Tensor
    prompt_mask: Tensor
    tokens: Tensor
    is_image: Tensor
    segment: Tensor
    mask: Tensor
    log_probs: Tensor
    seeds: Tensor
    sampling: Sampling
    group_size: int = 1
    revision: str = ""
    pictures: Tensor | None = None
    fresh_contexts: tuple[Context, ...] = ()
    segments: tuple[tuple[Segment, ...], ...] = ()
    allowed: AllowedTokens | None = None
    thoughts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        batch = len(self.tokens)
        for name, column in self._columns().items():
            if column.shape != self.tokens.shape:
                raise ValueError(f"{name} has shape {tuple(column.shape)}, tokens have {tuple(self.tokens.shape)}.")
        if len(self.prompts) != batch or self.prompt_ids.shape[0] != batch or self.seeds.shape != (batch,):
            raise ValueError(
                f"{len(self.prompts)} prompts, {self.prompt_ids.shape[0]} prompt rows, {batch} token rows."
            )
        if batch % self.group_size:
            raise ValueError(f"{batch} rollouts do not divide into groups of {self.group_size}.")
        if bool((self.mask & (self.segment < 0)).any()):
            raise ValueError("mask is True on padding.")
        if not self._is_in_order():
            raise ValueError("segments are out of order, or a segment mixes text and picture.")
        for context in self.fresh_contexts:
            if context.ids.shape != context.mask.shape or context.ids.shape[0] != batch or not context.ids.shape[1]:
                raise ValueError(f"a fresh context has ids {tuple(context.ids.shape)} for {batch} rollouts.")
        if self.segments:
            self._check_segments()
        elif len(self.fresh_contexts) > 1:
            raise ValueError(
                f"{len(self.fresh_contexts)} fresh contexts: describe in `segments` which segment is in which."
            )

    def _is_in_order(self) -> bool:
        """Check that segments are in order and of one kind each, with padding after them."""
        before, after = self.segment[:, :-1], self.segment[:, 1:]
        follows = (after < 0) | ((before >= 0) & (after >= before))
        alike = (after != before) | (self.is_image[:, 1:] == self.is_image[:, :-1])
        return bool(follows.all() & alike.all() & ~(self.is_image & (self.segment < 0)).any())

    def _check_segments(self) -> None:
        """Raise ValueError where `segments` contradicts the token axis."""
        if len(self.segments) != len(self):
            raise ValueError(f"`segments` describes {len(self.segments)} rows of {len(self)} rollouts.")
        for row, (segments, last) in enumerate(zip(self.segments, self._num_segments(), strict=True)):
            if last > len(segments):
                raise ValueError(f"row {row} has tokens of {last} segments and describes {len(segments)}.")
            for s in segments:
                if not 0 <= s.context <= len(self.fresh_contexts) or (s.picture >= 0) == (s.kind == "text"):
                    raise ValueError(
                        f"row {row}: {s} with {len(self.fresh_contexts)} fresh contexts. Only a picture has a number."
                    )
        if not torch.equal(self._of_tokens(lambda s: int(s.kind != "text")) == 1, self.is_image):
            raise ValueError("is_image contradicts the kinds of the segments.")
        if bool((self.mask & (self._of_tokens(lambda s: int(s.kind == "shown")) == 1)).any()):
            raise ValueError("mask is True in a shown picture, which the policy did not choose.")

    def __len__(self) -> int:
        return self.tokens.shape[0]

    # Segments, contexts and pictures

    @property
    def contexts(self) -> tuple[Context, ...]:
        """The prompt's context, then the fresh ones."""
        return (Context(self.prompt_ids, self.prompt_mask), *self.fresh_contexts)

    def segments_of(self, row: int) -> tuple[Segment, ...]:
        """Describe the segments of one row, in the order they were written."""
        if self.segments:
            return self.segments[row]
        segments: list[Segment] = []
        for index in range(self._num_segments()[row]):
            if bool(self.is_image[row][self.segment[row] == index].any()):
                segments.append(Segment("drawn", sum(s.kind == "drawn" for s in segments), len(self.fresh_contexts)))
            else:
                segments.append(Segment("text"))
        return tuple(segments)

    def segment_tokens(self, row: int, index: int) -> Tensor:
        """Return the tokens (n,) of one segment."""
        return self.tokens[row][self.segment[row] == index]

    def token_contexts(self) -> Tensor:
        """Return, for each token, the index (B, T) int64 of its context; −1 on padding."""
        if self.segments:
            return self._of_tokens(lambda s: s.context)
        return (self.is_image * len(self.fresh_contexts)).masked_fill(self.segment < 0, -1)

    def is_sampled(self) -> Tensor:
        """Mark the tokens (B, T) bool that the policy wrote or drew.

        Forced tokens count; pictures that were shown do not.
        """
        written = self.segment >= 0
        return written & (self._of_tokens(lambda s: int(s.kind != "shown")) == 1) if self.segments else written

    def text_was_cut(self) -> Tensor:
        """Mark the rows (B,) bool in which a text filled its budget and was cut."""
        cut = torch.zeros(len(self), dtype=torch.bool, device=self.tokens.device)
        for index in range(max(self._num_segments(), default=0)):
            text = (self.segment == index) & ~self.is_image
            written = (text & self.mask).any(1)
            if self.sampling.thought == "rewrite":  # its picture has a fresh context: nothing is forced after a cut
                cut |= written & (text.sum(1) >= self.sampling.max_thought_tokens)
            else:
                cut |= written & (text & ~self.mask).any(1)
        return cut

    def in_last_picture(self) -> Tensor:
        """Mark the tokens (B, T) bool of each row's last picture, all its parts."""
        if self.segments:
            picture = self._of_tokens(lambda s: s.picture if s.kind == "drawn" else -1)
        else:
            picture = self.segment.masked_fill(~self.is_image, -1)
        return (picture >= 0) & (picture == picture.amax(1, keepdim=True))

    def image_tokens(self) -> Tensor:
        """Return the codes (B, N) of each row's last picture.

        Raises ValueError where rows differ in N.
        """
        chosen = self.in_last_picture()
        counts = chosen.sum(1)
        if not len(self):
            return self.tokens[:, :0]
        if int(counts.min()) != int(counts.max()):
            raise ValueError(f"the batch has pictures of {int(counts.min())} to {int(counts.max())} tokens.")
        return self.tokens[chosen].reshape(len(self), -1)

    def all_image_tokens(self) -> Tensor:
        """Return the codes (B, N) of all of each row's pictures, right-padded with 0."""
        counts = self.is_image.sum(1)
        most = int(counts.max()) if len(self) else 0
        first = (~self.is_image).long().argsort(dim=1, stable=True)[:, :most]
        past = torch.arange(first.shape[1], device=counts.device) >= counts[:, None]
        return self.tokens.gather(1, first).masked_fill(past, 0)

    def _num_segments(self) -> list[int]:
        return [last + 1 for last in as_ints(self.segment.amax(1))]

    def _of_tokens(self, number: Callable[[Segment], int]) -> Tensor:
        """Spread a number per segment over the tokens: (B, T) int64, −1 on padding."""
        width = max(map(len, self.segments))
        rows = [[*map(number, row), *[-1] * (width + 1 - len(row))] for row in self.segments]
        table = torch.tensor(rows, dtype=torch.long, device=self.tokens.device)
        return table.gather(1, self.segment.long() % (width + 1))  # −1 % (width + 1) is the last column, which holds −1

    # Rows

    def select(self, rows: Sequence[int] | Tensor, group_size: int = 1) -> "Rollouts":
        """Select rows, in the order of `rows`, and cut columns that are all padding.

        group_size: of the result. It exceeds 1 only where the rows are whole groups.
        """
        index = torch.as_tensor(rows, dtype=torch.long)
        chosen = as_ints(index)
        length = max(1, int((self.segment[index] >= 0).sum(1).max())) if chosen else 1
        columns = {name: column[index, :length] for name, column in self._columns().items()}
        return dataclasses.replace(
            self,
            **columns,
            prompts=tuple(self.prompts[row] for row in chosen),
            prompt_ids=self.prompt_ids[index],
            prompt_mask=self.prompt_mask[index],
            seeds=self.seeds[index],
            group_size=group_size,
            pictures=None if self.pictures is None else self.pictures[index],
            fresh_contexts=tuple(context.select(index) for context in self.fresh_contexts),
            segments=tuple(self.segments[row] for row in chosen) if self.segments else (),
            allowed=None if self.allowed is None else self.allowed.select(index, length),
            thoughts=tuple(self.thoughts[row] for row in chosen) if self.thoughts else (),
        )

    @staticmethod
    def join(parts: "Sequence[Rollouts]", pad_id: int = 0) -> "Rollouts":
        """Join the rows of several batches, padded to the longest row.

        All have the same sampling settings and group size.
        pad_id: for ids of contexts. Masks hide them, so any id will do.
        """
        columns = {
            name: join_padded([part._columns()[name] for part in parts], -1 if name == "segment" else 0)
            for name in parts[0]._columns()
        }
        count = max(len(part.contexts) for part in parts)
        contexts = [Context.join([part._context(i, pad_id) for part in parts], pad_id) for i in range(count)]
        is_plain = all(not part.segments and len(part.contexts) == count for part in parts)
        pictures = [part.pictures for part in parts]
        allowed = [part.allowed or AllowedTokens.none(part.tokens) for part in parts]
        return dataclasses.replace(
            parts[0],
            **columns,
            prompts=tuple(prompt for part in parts for prompt in part.prompts),
            prompt_ids=contexts[0].ids,
            prompt_mask=contexts[0].mask,
            seeds=torch.cat([part.seeds for part in parts]),
            pictures=None if pictures[0] is None else torch.cat(cast(list[Tensor], pictures)),
            fresh_contexts=tuple(contexts[1:]),
            segments=() if is_plain else tuple(p.segments_of(row) for p in parts for row in range(len(p))),
            allowed=AllowedTokens.join(allowed) if any(part.allowed for part in parts) else None,
            thoughts=tuple(thought for part in parts for thought in part.thoughts),
        )

    def without_guidance(self) -> "Rollouts":
        """Return the same tokens, to be scored without guidance.

        The sets that top-k and top-p left are dropped: without guidance other tokens would be left.
        """
        return replace(self, sampling=self.sampling.model_copy(update={"guidance_scale": 1.0}), allowed=None)

    def to(self, device: torch.device | str) -> "Rollouts":
        """Move all tensors to a device."""
        return dataclasses.replace(
            self,
            **{name: column.to(device) for name, column in self._columns().items()},
            prompt_ids=self.prompt_ids.to(device),
            prompt_mask=self.prompt_mask.to(device),
            seeds=self.seeds.to(device),
            pictures=None if self.pictures is None else self.pictures.to(device),
            fresh_contexts=tuple(context.to(device) for context in self.fresh_contexts),
            allowed=None if self.allowed is None else self.allowed.to(device),
        )

    def _columns(self) -> dict[str, Tensor]:
        """Return the fields on the token axis, (B, T) each."""
        return {
            "tokens": self.tokens, "is_image": self.is_image, "segment": self.segment, "mask": self.mask,
            "log_probs": self.log_probs,
        }  # fmt: skip

    def _context(self, index: int, pad_id: int) -> Context:
        """Return a context by number, a blank one where these rollouts have fewer."""
        contexts = self.contexts
        return contexts[index] if index < len(contexts) else Context.blank(len(self), pad_id, self.tokens.device)


@dataclass(frozen=True)
class TokenLogProbs:
    """Log-prob and entropy of each token, in the distribution it was sampled from.

    log_probs, entropy: (B, T) nats, with gradient; 0 where the rollouts' mask is False.
    """

    log_probs: Tensor
    entropy: Tensor
