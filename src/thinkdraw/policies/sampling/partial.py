"""Partly written rollouts: a text and then a picture, and their token axis."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thinkdraw.types import AllowedTokens, Rollouts


def pad_rows(rows: list[list[int]], value: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Pad rows on the right to (B, L) int64 ids, and return their lengths (B,)."""
    lengths = torch.tensor([len(row) for row in rows], device=device)
    width = max(1, max((len(row) for row in rows), default=1))
    return torch.tensor([row + [value] * (width - len(row)) for row in rows], device=device), lengths


@dataclass
class PartialRollouts:
    """B rollouts, partly or fully written; the sampler continues them in place.

    text, text_mask, text_log_probs: (B, K), with K = thought budget + 1 for begin-of-image.
    text_len: (B,), written text tokens.
    codes, code_log_probs: (B, N), the image tokens.
    num_codes: (B,), written image tokens.
    allowed: what top-k and top-p left, as tensors (4, k) int64 whose rows are row, is_image, index within the
        segment, and token id.
    """

    text: Tensor
    text_len: Tensor
    text_mask: Tensor
    text_log_probs: Tensor
    codes: Tensor
    num_codes: Tensor
    code_log_probs: Tensor
    allowed: list[Tensor] = field(default_factory=list)

    @classmethod
    def blank(cls, num_rows: int, budget: int, num_image_tokens: int, device: torch.device | str) -> "PartialRollouts":
        """Make rollouts with nothing written."""

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        return cls(
            text=zeros(num_rows, budget + 1),
            text_len=zeros(num_rows),
            text_mask=zeros(num_rows, budget + 1, dtype=torch.bool),
            text_log_probs=zeros(num_rows, budget + 1, dtype=torch.float32),
            codes=zeros(num_rows, num_image_tokens),
            num_codes=zeros(num_rows),
            code_log_probs=zeros(num_rows, num_image_tokens, dtype=torch.float32),
        )

    @classmethod
    def of_prefix(cls, rollouts: Rollouts, lengths: Tensor, budget: int, num_image_tokens: int) -> "PartialRollouts":
        """Begin with the first lengths[r] tokens of each rollout.

        Their log-probs, mask and allowed tokens come with them.
        """
        partial = cls.blank(len(rollouts), budget, num_image_tokens, rollouts.tokens.device)
        text_len = (~rollouts.is_image & (rollouts.segment >= 0)).sum(1)
        partial.text_len = torch.minimum(lengths, text_len)
        partial.num_codes = (lengths - text_len).clamp(0, num_image_tokens)
        # Column t of the token axis is text token t, or image token t − text_len.
        row, column = torch.where(torch.arange(rollouts.tokens.shape[1], device=lengths.device) < lengths[:, None])
        image = rollouts.is_image[row, column]
        for modality, columns, targets in (
            (~image, column, (partial.text, partial.text_mask, partial.text_log_probs)),
            (image, column - text_len[row], (partial.codes, None, partial.code_log_probs)),
        ):
            for target, source in zip(targets, (rollouts.tokens, rollouts.mask, rollouts.log_probs)):
                if target is not None:
                    target[row[modality], columns[modality]] = source[row[modality], column[modality]]
        if rollouts.allowed is not None:
            counts = rollouts.allowed.counts.long()
            flat = torch.arange(counts.numel(), device=lengths.device).repeat_interleave(counts.flatten())
            row, column = flat // counts.shape[1], flat % counts.shape[1]
            stays = column < lengths[row]
            image = rollouts.is_image[row, column]
            index = torch.where(image, column - text_len[row], column)
            partial.allowed.append(torch.stack([row, image.long(), index, rollouts.allowed.indices.long()])[:, stays])
        return partial

    def select(self, rows: Tensor) -> "PartialRollouts":
        """Copy some rows, in the order of `rows`, and their entries of `allowed`."""
        selected = []
        for entries in self.allowed:
            entries = entries[:, entries[0].argsort(stable=True)]
            counts = entries[0].bincount(minlength=len(self.text_len))
            begins, sizes = (counts.cumsum(0) - counts)[rows], counts[rows]
            new = torch.arange(len(rows), device=rows.device).repeat_interleave(sizes)
            offset = torch.arange(len(new), device=rows.device) - (sizes.cumsum(0) - sizes)[new]
            entries = entries[:, begins[new] + offset]
            entries[0] = new
            selected.append(entries)
        tensors = {name: value[rows] for name, value in vars(self).items() if name != "allowed"}
        return PartialRollouts(**tensors, allowed=selected)

    def last_text(self) -> Tensor:
        """Return the id (B,) of each row's last text token, −1 where there is none."""
        last = self.text.gather(1, (self.text_len - 1).clamp(min=0)[:, None])[:, 0]
        return torch.where(self.text_len > 0, last, -1)

    def force_text(self, rows: Tensor, token: int) -> None:
        """Append a text token that the policy did not choose, and that is not in the mask."""
        self.text[rows, self.text_len[rows]] = token
        self.text_len[rows] += 1

    def write_text(self, rows: Tensor, tokens: Tensor, log_probs: Tensor, chosen: Tensor) -> None:
        """Append chosen tokens and their log-probs to A rows, where `chosen` (A,) is True."""
        index = self.text_len[rows]
        for target, new in ((self.text, tokens), (self.text_mask, chosen), (self.text_log_probs, log_probs)):
            target[rows, index] = torch.where(chosen, new, target[rows, index])
        self.text_len[rows] += chosen

    def note_allowed(self, rows: Tensor, is_image: bool, index: Tensor, allowed: Tensor) -> None:
        """Record the allowed tokens (A, V) bool of each row's newest token.

        index: (A,), of these tokens within their segment, text or picture.
        """
        slot, token = allowed.nonzero(as_tuple=True)
        self.allowed.append(torch.stack([rows[slot], torch.full_like(slot, is_image), index[slot], token]))

    def texts(self, rows: Tensor | None = None) -> list[list[int]]:
        """Return the ids of the texts, of some rows or of all."""
        text, lengths = (self.text, self.text_len) if rows is None else (self.text[rows], self.text_len[rows])
        return [ids[:length] for ids, length in zip(text.tolist(), lengths.tolist())]

    def token_axis(self) -> dict[str, Any]:
        """Lay text and picture out on the token axis (B, T) of `Rollouts`.

        Returns tokens, is_image, segment, mask, log_probs and allowed. The picture must be complete.
        """
        num_image_tokens = self.codes.shape[1]
        begin = self.text_len[:, None]
        column = torch.arange(int(self.text_len.max()) + num_image_tokens, device=self.text.device)
        is_image = (column >= begin) & (column < begin + num_image_tokens)
        is_text = column < begin
        text_at = column.clamp(max=self.text.shape[1] - 1).expand(is_image.shape)
        code_at = (column - begin).clamp(0, num_image_tokens - 1)

        def merge(of_text: Tensor, of_codes: Tensor) -> Tensor:
            zero = torch.zeros((), dtype=of_text.dtype, device=of_text.device)
            return torch.where(
                is_text, of_text.gather(1, text_at), torch.where(is_image, of_codes.gather(1, code_at), zero)
            )

        picture_segment = (self.text_len > 0).to(torch.int8)[:, None]  # 0 in rows without any text
        segment = torch.where(is_image, picture_segment, torch.where(is_text, 0, -1)).to(torch.int8)
        return {
            "tokens": merge(self.text, self.codes),
            "is_image": is_image,
            "segment": segment,
            "mask": merge(self.text_mask, torch.ones_like(self.codes, dtype=torch.bool)),
            "log_probs": merge(self.text_log_probs, self.code_log_probs),
            "allowed": self._allowed_tokens(is_image.shape),
        }

    def _allowed_tokens(self, shape: torch.Size) -> AllowedTokens | None:
        """Sort `allowed` into the order of the token axis. shape: (B, T)."""
        if not self.allowed:
            return None
        row, image, index, token = torch.cat(self.allowed, dim=1)
        position = row * shape[1] + index + image * self.text_len[row]
        order = torch.argsort(position, stable=True)  # stable: a token's ids were recorded in ascending order
        counts = torch.bincount(position, minlength=shape[0] * shape[1]).reshape(shape)
        return AllowedTokens(token[order].to(torch.int32), counts.to(torch.int32))
