"""How a policy samples, and what it sampled: rows of segments, each a text or a picture.

Shape letters: P prompts, G group size, B = P·G rollouts, L prompt tokens, T sampled tokens, N image tokens, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from thinkdraw.config import StrictModel
from thinkdraw.types.prompts import Prompt

ThoughtFormat = Literal["inline", "rewrite", "off"]


class Sampling(StrictModel):
    """How a policy samples. Guidance applies to image tokens only; temperature, top-k and top-p to both modalities."""

    thought: ThoughtFormat = Field(default="inline", description="Where the thought stands: inline, rewrite or off.")
    max_thought_tokens: int = Field(
        default=64, ge=1, description="Budget; a longer thought is cut and begin-of-image forced."
    )
    temperature: float = Field(default=1.0, gt=0)
    top_k: int | None = Field(default=None, ge=1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    guidance_scale: float = Field(default=1.0, ge=0, description="u + s(c − u) on image logits; 1 is no guidance.")
    greedy: bool = Field(
        default=False, description="Take the most likely token; log-probs are still those of the distribution."
    )


@dataclass(frozen=True)
class Kept:
    """The token sets that top-k or top-p left to sample from, in compressed rows.

    indices: (K,) int32, ascending within a token. counts: (B, T) int32; 0 where nothing was cut.
    """

    indices: Tensor
    counts: Tensor

    def rows(self, rows: Tensor) -> "Kept":
        starts = torch.cumsum(self.counts.flatten().long(), 0).reshape(self.counts.shape)
        ends = starts[:, -1]
        begins = ends - self.counts.sum(1)
        parts = [self.indices[int(begins[r]) : int(ends[r])] for r in rows.tolist()]
        return Kept(torch.cat(parts) if parts else self.indices[:0], self.counts[rows])


@dataclass(frozen=True)
class Rollouts:
    """B sampled thoughts and pictures, prompt-major in groups of `group_size`.

    prompt_ids, prompt_mask: (B, L) right-padded ids of the context before the first token, and its True = real mask.
    tokens: (B, T) int64, right-padded: a row of segments, each a text or a picture. is_image: (B, T) bool, True = image token.
    segment: (B, T) int8, index of the token's segment, −1 = padding. mask: (B, T) bool, True = chosen by the policy.
    log_probs: (B, T) float32 nats under the distribution sampled from; 0 where mask is False.
    draw_ids, draw_mask: (B, L2) the fresh context of `rewrite`'s picture, else None.
    seeds: (B,) int64, all of a rollout's noise. pictures: (B, H, W, 3) uint8 or None.
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
    draw_ids: Tensor | None = None
    draw_mask: Tensor | None = None
    kept: Kept | None = None
    thoughts: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        batch, length = self.tokens.shape
        for name in ("is_image", "segment", "mask", "log_probs"):
            if getattr(self, name).shape != (batch, length):
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}, tokens have {(batch, length)}.")
        if len(self.prompts) != batch or self.prompt_ids.shape[0] != batch or self.seeds.shape != (batch,):
            raise ValueError(
                f"{len(self.prompts)} prompts, {self.prompt_ids.shape[0]} prompt rows, {batch} token rows."
            )
        if batch % self.group_size:
            raise ValueError(f"{batch} rollouts do not divide into groups of {self.group_size}.")
        if bool((self.mask & (self.segment < 0)).any()):
            raise ValueError("mask is True on padding.")

    def __len__(self) -> int:
        return self.tokens.shape[0]

    def select(self, rows: Sequence[int] | Tensor, group_size: int = 1) -> "Rollouts":
        """Some rows, in the given order; trailing columns that are padding in all of them are cut."""
        index = torch.as_tensor(rows, dtype=torch.long)
        length = max(1, int((self.segment[index] >= 0).sum(1).max())) if len(index) else 1
        kept = self.kept.rows(index) if self.kept else None
        if kept is not None:
            kept = Kept(kept.indices, kept.counts[:, :length])
        changes: dict[str, Any] = {"group_size": group_size, "kept": kept}
        for name in ("tokens", "is_image", "segment", "mask", "log_probs"):
            changes[name] = getattr(self, name)[index, :length]
        for name in ("prompt_ids", "prompt_mask", "seeds", "pictures", "draw_ids", "draw_mask"):
            value = getattr(self, name)
            changes[name] = None if value is None else value[index]
        changes["prompts"] = tuple(self.prompts[i] for i in index.tolist())
        changes["thoughts"] = tuple(self.thoughts[i] for i in index.tolist()) if self.thoughts else ()
        return dataclasses.replace(self, **changes)

    @staticmethod
    def join(parts: "Sequence[Rollouts]", pad_id: int = 0) -> "Rollouts":
        """Rows of the same sampling settings and group size, one part after the other, padded to the longest.

        pad_id: for prompt_ids and draw_ids; what the masks hide is never looked at.
        """
        first = parts[0]

        def stacked(name: str, fill: int | bool) -> Tensor | None:
            values = [getattr(part, name) for part in parts]
            if values[0] is None:
                return None
            width = max(value.shape[1] for value in values)
            return torch.cat([F.pad(value, (0, width - value.shape[1]), value=fill) for value in values])

        fills: dict[str, int | bool] = {"prompt_ids": pad_id, "draw_ids": pad_id, "segment": -1, "tokens": 0}
        fills |= {"log_probs": 0} | dict.fromkeys(("prompt_mask", "draw_mask", "is_image", "mask"), False)
        changes: dict[str, Any] = {name: stacked(name, fill) for name, fill in fills.items()}
        if first.kept is not None:
            kept = [part.kept for part in parts if part.kept]
            width = changes["tokens"].shape[1]
            counts = torch.cat([F.pad(k.counts, (0, width - k.counts.shape[1])) for k in kept])
            changes["kept"] = Kept(torch.cat([k.indices for k in kept]), counts)
        changes["seeds"] = torch.cat([part.seeds for part in parts])
        changes["pictures"] = None if first.pictures is None else torch.cat([p.pictures for p in parts])  # type: ignore[misc]
        changes["prompts"] = tuple(prompt for part in parts for prompt in part.prompts)
        changes["thoughts"] = tuple(thought for part in parts for thought in part.thoughts)
        return dataclasses.replace(first, **changes)

    def to(self, device: torch.device | str) -> "Rollouts":
        moved = {
            f.name: getattr(self, f.name).to(device)
            for f in dataclasses.fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        if self.kept:
            moved["kept"] = Kept(self.kept.indices.to(device), self.kept.counts.to(device))
        return dataclasses.replace(self, **moved)

    def image_tokens(self) -> Tensor:
        """(B, N) codes of each row's last picture; every row must have the same N."""
        last = torch.where(self.is_image, self.segment, torch.full_like(self.segment, -1)).amax(1, keepdim=True)
        chosen = self.is_image & (self.segment == last) & (last >= 0)
        counts = chosen.sum(1)
        if int(counts.min()) != int(counts.max()):
            raise ValueError(f"pictures of {int(counts.min())} to {int(counts.max())} tokens in one batch.")
        return self.tokens[chosen].reshape(len(self), -1)


@dataclass(frozen=True)
class Scored:
    """What `Policy.log_probs` gives for each token: log_probs (B, T) nats and entropy (B, T) nats of the distribution
    sampled from, both with gradient and 0 where the rollouts' mask is False."""

    log_probs: Tensor
    entropy: Tensor
