"""What a policy sampled: rows of segments, each a text, (part of) a drawn picture, or a picture that was shown.

Shape letters: P prompts, G group size, B = P·G rollouts, L prompt tokens, T tokens of a row, N image tokens.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from thinkdraw.types.prompts import Prompt
from thinkdraw.types.sampling import Sampling
from thinkdraw.types.segments import AllowedTokens, Context, Segment, as_ints, join_padded


@dataclass(frozen=True)
class Rollouts:
    """B rollouts, prompt-major in groups of `group_size`.

    The context, which is not trained on: prompt_ids (B, L), right-padded, and prompt_mask (B, L), True = real.
    What follows it, the *token axis* (B, T), right-padded, texts and pictures in the order in which they came:
    tokens: int64. is_image: bool. segment: int8, index of the token's segment, −1 = padding.
    mask: bool, True = chosen by the policy, and so trained on; False where a token was forced or shown.
    log_probs: float32 nats under the distribution sampled from; 0 where mask is False.
    allowed: the token sets that top-k or top-p left to sample from; None where nothing was cut.
    fresh: further contexts, begun after the prompt's, such as the rewritten prompt that a `rewrite` picture is drawn from.
    segments: what each row's segments are; () where each is a text in the prompt's context, or a whole picture, drawn in
        the fresh context where there is one.
    seeds: (B,) int64; a rollout's noise follows from its seed. revision: of the policy that sampled.
    pictures: (B, H, W, 3) uint8, the last one that was drawn, or None. thoughts: B texts, what each policy wrote, or ().
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
    fresh: tuple[Context, ...] = ()
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
            raise ValueError("segments out of order, or one that is text and picture.")
        for context in self.fresh:
            if context.ids.shape != context.mask.shape or context.ids.shape[0] != batch or not context.ids.shape[1]:
                raise ValueError(f"a fresh context of ids {tuple(context.ids.shape)} for {batch} rollouts.")
        if self.segments:
            self._check_segments()
        elif len(self.fresh) > 1:
            raise ValueError(f"{len(self.fresh)} fresh contexts: say in `segments` which segment is written in which.")

    def _is_in_order(self) -> bool:
        """Segments follow each other, padding follows them, and all tokens of one are of one kind."""
        before, after = self.segment[:, :-1], self.segment[:, 1:]
        follows = (after < 0) | ((before >= 0) & (after >= before))
        alike = (after != before) | (self.is_image[:, 1:] == self.is_image[:, :-1])
        return bool(follows.all() & alike.all() & ~(self.is_image & (self.segment < 0)).any())

    def _check_segments(self) -> None:
        if len(self.segments) != len(self):
            raise ValueError(f"segments of {len(self.segments)} rows for {len(self)} rollouts.")
        for row, (segments, last) in enumerate(zip(self.segments, self._num_segments(), strict=True)):
            if last > len(segments):
                raise ValueError(f"row {row} has tokens of {last} segments and says what {len(segments)} are.")
            for s in segments:
                if not 0 <= s.context <= len(self.fresh) or (s.picture >= 0) == (s.kind == "text"):
                    raise ValueError(f"row {row}: {s} with {len(self.fresh)} fresh contexts. A picture has a number.")
        if not torch.equal(self._of_tokens(lambda s: int(s.kind != "text")) == 1, self.is_image):
            raise ValueError("is_image says otherwise than the kinds of the segments.")
        if bool((self.mask & (self._of_tokens(lambda s: int(s.kind == "shown")) == 1)).any()):
            raise ValueError("mask is True in a shown picture, which nobody chose.")

    def __len__(self) -> int:
        return self.tokens.shape[0]

    # Segments, contexts and pictures

    @property
    def contexts(self) -> tuple[Context, ...]:
        """The prompt's, then the fresh ones."""
        return (Context(self.prompt_ids, self.prompt_mask), *self.fresh)

    def segments_of(self, row: int) -> tuple[Segment, ...]:
        """What the segments of one row are, in the order in which they were written."""
        if self.segments:
            return self.segments[row]
        found: list[Segment] = []
        for index in range(self._num_segments()[row]):
            if bool(self.is_image[row][self.segment[row] == index].any()):
                found.append(Segment("drawn", sum(s.kind == "drawn" for s in found), len(self.fresh)))
            else:
                found.append(Segment("text"))
        return tuple(found)

    def segment_tokens(self, row: int, index: int) -> Tensor:
        """(n,) the tokens of one segment."""
        return self.tokens[row][self.segment[row] == index]

    def token_contexts(self) -> Tensor:
        """(B, T) int64: which of `contexts` each token is written in; −1 on padding."""
        if self.segments:
            return self._of_tokens(lambda s: s.context)
        return (self.is_image * len(self.fresh)).masked_fill(self.segment < 0, -1)

    def is_sampled(self) -> Tensor:
        """(B, T) bool: the tokens that the policy wrote or drew, those that were forced included; not what it was shown."""
        written = self.segment >= 0
        return written & (self._of_tokens(lambda s: int(s.kind != "shown")) == 1) if self.segments else written

    def text_was_cut(self) -> Tensor:
        """(B,) bool: a text that the policy wrote filled its budget and did not end by itself."""
        cut = torch.zeros(len(self), dtype=torch.bool, device=self.tokens.device)
        for index in range(max(self._num_segments(), default=0)):
            text = (self.segment == index) & ~self.is_image
            written = (text & self.mask).any(1)
            if self.sampling.thought == "rewrite":  # there nothing is forced after a cut
                cut |= written & (text.sum(1) >= self.sampling.max_thought_tokens)
            else:
                cut |= written & (text & ~self.mask).any(1)
        return cut

    def in_last_picture(self) -> Tensor:
        """(B, T) bool: the tokens of the picture that each row drew last, all its parts."""
        if self.segments:
            picture = self._of_tokens(lambda s: s.picture if s.kind == "drawn" else -1)
        else:
            picture = self.segment.masked_fill(~self.is_image, -1)
        return (picture >= 0) & (picture == picture.amax(1, keepdim=True))

    def image_tokens(self) -> Tensor:
        """(B, N) codes of the picture that each row drew last; every row must have the same N."""
        chosen = self.in_last_picture()
        counts = chosen.sum(1)
        if not len(self):
            return self.tokens[:, :0]
        if int(counts.min()) != int(counts.max()):
            raise ValueError(f"pictures of {int(counts.min())} to {int(counts.max())} tokens in one batch.")
        return self.tokens[chosen].reshape(len(self), -1)

    def all_image_tokens(self) -> Tensor:
        """(B, N) codes of all of each row's pictures, in order, right-padded with 0."""
        counts = self.is_image.sum(1)
        most = int(counts.max()) if len(self) else 0
        first = (~self.is_image).long().argsort(dim=1, stable=True)[:, :most]
        past = torch.arange(first.shape[1], device=counts.device) >= counts[:, None]
        return self.tokens.gather(1, first).masked_fill(past, 0)

    def _num_segments(self) -> list[int]:
        return [last + 1 for last in as_ints(self.segment.amax(1))]

    def _of_tokens(self, number: Callable[[Segment], int]) -> Tensor:
        """(B, T) int64: what `number` gives for the segment of each token; −1 on padding."""
        width = max(map(len, self.segments))
        rows = [[*map(number, row), *[-1] * (width + 1 - len(row))] for row in self.segments]
        table = torch.tensor(rows, dtype=torch.long, device=self.tokens.device)
        return table.gather(1, self.segment.long() % (width + 1))  # −1 comes to stand in the last column

    # Rows

    def select(self, rows: Sequence[int] | Tensor, group_size: int = 1) -> "Rollouts":
        """Some rows, in the given order; trailing columns that are padding in all of them are cut.

        group_size: of the result; more than 1 only where the rows are whole groups.
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
            fresh=tuple(context.rows(index) for context in self.fresh),
            segments=tuple(self.segments[row] for row in chosen) if self.segments else (),
            allowed=None if self.allowed is None else self.allowed.rows(index, length),
            thoughts=tuple(self.thoughts[row] for row in chosen) if self.thoughts else (),
        )

    @staticmethod
    def join(parts: "Sequence[Rollouts]", pad_id: int = 0) -> "Rollouts":
        """Rows of the same sampling settings and group size, one part after the other, padded to the longest.

        pad_id: for ids of contexts; what the masks hide is never looked at.
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
            fresh=tuple(contexts[1:]),
            segments=() if is_plain else tuple(p.segments_of(row) for p in parts for row in range(len(p))),
            allowed=AllowedTokens.join(allowed) if any(part.allowed for part in parts) else None,
            thoughts=tuple(thought for part in parts for thought in part.thoughts),
        )

    def to(self, device: torch.device | str) -> "Rollouts":
        return dataclasses.replace(
            self,
            **{name: column.to(device) for name, column in self._columns().items()},
            prompt_ids=self.prompt_ids.to(device),
            prompt_mask=self.prompt_mask.to(device),
            seeds=self.seeds.to(device),
            pictures=None if self.pictures is None else self.pictures.to(device),
            fresh=tuple(context.to(device) for context in self.fresh),
            allowed=None if self.allowed is None else self.allowed.to(device),
        )

    def _columns(self) -> dict[str, Tensor]:
        """The fields on the token axis, (B, T) each."""
        return {
            "tokens": self.tokens, "is_image": self.is_image, "segment": self.segment, "mask": self.mask,
            "log_probs": self.log_probs,
        }  # fmt: skip

    def _context(self, index: int, pad_id: int) -> Context:
        """A context by number; a blank one where these rollouts have fewer."""
        there = self.contexts
        return there[index] if index < len(there) else Context.blank(len(self), pad_id, self.tokens.device)


@dataclass(frozen=True)
class TokenLogProbs:
    """What `Policy.log_probs` gives: log-prob and entropy of each token's distribution.

    log_probs, entropy: (B, T) nats, of the distribution sampled from, with gradient; 0 where the rollouts' mask is False.
    """

    log_probs: Tensor
    entropy: Tensor
