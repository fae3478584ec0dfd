"""The base of scorers of (picture, text) pairs: checks, chunks, revision."""

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from thinkdraw.judges.loading import digest
from thinkdraw.runtime.device import pick_device


class PairScorer:
    """A `Scorer` that works in chunks; its subclass gives `_compute` and sets `model`.

    A subclass that reads texts also sets `tokenizer` and `max_tokens`; `num_truncated` counts the texts cut there.
    A number that is not finite becomes NaN: no verdict.
    """

    name: str
    model: Any  # Any: torch types the parts of a transformers model as Tensor | Module
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int

    def __init__(self, path: str, device: str, max_pairs: int):
        self.path, self.device, self.max_pairs = path, pick_device(device), max_pairs
        self.num_truncated = 0

    @cached_property
    def revision(self) -> str:
        """Short hash of the judge's name and of all its weights, for caches and labels."""
        return digest(self.name, self.model)

    @torch.no_grad()
    def score(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """Score pictures (B, H, W, 3) uint8 against texts: (B,) float32 on the CPU.

        Pictures are resized as the judge's authors do.
        """
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(f"pictures of {pictures.dtype} {tuple(pictures.shape)}: expected uint8 (B, H, W, 3).")
        if len(pictures) != len(texts):
            raise ValueError(f"{len(pictures)} pictures and {len(texts)} texts: give one text for each picture.")
        if not len(texts):
            return torch.zeros(0)
        numbers = self._compute(pictures.cpu(), texts).float().cpu()
        return torch.where(numbers.isfinite(), numbers, torch.nan)

    def _compute(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """Score at least one pair: (B,)."""
        raise NotImplementedError

    def _in_chunks(self, items: Any, work: Callable[[Any], Tensor]) -> Tensor:
        return torch.cat([work(items[i : i + self.max_pairs]) for i in range(0, len(items), self.max_pairs)])

    def _prepare(self, text: str) -> str:
        """Clean a text up before the tokenizer reads it."""
        return text

    def _count_truncated(self, texts: Sequence[str]) -> None:
        """Count the texts that will be cut, and warn of the first ones.

        Call it once per `score`: `stacklevel` counts on that depth.
        """
        lengths = {text: len(self.tokenizer(self._prepare(text), verbose=False).input_ids) for text in set(texts)}
        cut = sum(lengths[text] > self.max_tokens for text in texts)
        if cut and not self.num_truncated:
            warnings.warn(
                f"{cut} of {len(texts)} texts are longer than the {self.max_tokens} tokens that {self.path} reads, "
                f"the longest {max(lengths.values())}. It sees only their beginnings.",
                stacklevel=5,
            )
        self.num_truncated += cut


class EmbeddingScorer(PairScorer):
    """A `PairScorer` that compares embeddings; its subclass gives the two embedders.

    Equal texts, such as those of a group, are embedded once.
    """

    def _compute(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        self._count_truncated(texts)
        distinct = {text: k for k, text in enumerate(dict.fromkeys(texts))}
        embeddings = self._in_chunks(pictures, self._embed_pictures), self._in_chunks(list(distinct), self._embed_texts)
        of_pictures, of_texts = (torch.nn.functional.normalize(e.float(), dim=-1).cpu() for e in embeddings)
        return self._scale((of_pictures * of_texts[[distinct[text] for text in texts]]).sum(-1))

    def _embed_pictures(self, pictures: Tensor) -> Tensor:
        """Embed pictures: (B, D)."""
        raise NotImplementedError

    def _embed_texts(self, texts: list[str]) -> Tensor:
        """Embed texts: (len(texts), D)."""
        raise NotImplementedError

    def _scale(self, cosines: Tensor) -> Tensor:
        return cosines
