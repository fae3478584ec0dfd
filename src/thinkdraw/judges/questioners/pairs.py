"""What scorers of (picture, text) pairs share: what they refuse, texts that are too long, chunks, the revision."""

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
    """A `Scorer` whose subclass gives `_numbers` and sets `model`; one that reads texts, `tokenizer` and `max_tokens`.

    A number that is not finite is NaN: no verdict. `num_truncated` counts the texts that were cut at `max_tokens`.
    """

    name: str
    model: Any  # a class of transformers, to whose parts torch gives the type Tensor | Module
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
        """pictures: (B, H, W, 3) uint8, resized as the judge was published. → (B,) float32 on the CPU."""
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(f"pictures of {pictures.dtype} {tuple(pictures.shape)}: expected uint8 (B, H, W, 3).")
        if len(pictures) != len(texts):
            raise ValueError(f"{len(pictures)} pictures and {len(texts)} texts: each pair needs one of both.")
        if not len(texts):
            return torch.zeros(0)
        numbers = self._numbers(pictures.cpu(), texts).float().cpu()
        return torch.where(numbers.isfinite(), numbers, torch.nan)

    def _numbers(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """(B,) of at least one pair."""
        raise NotImplementedError

    def _in_chunks(self, items: Any, work: Callable[[Any], Tensor]) -> Tensor:
        return torch.cat([work(items[i : i + self.max_pairs]) for i in range(0, len(items), self.max_pairs)])

    def _prepared(self, text: str) -> str:
        """The text as the tokenizer gets it."""
        return text

    def _count_truncated(self, texts: Sequence[str]) -> None:
        """Count the texts that will be cut, and warn of the first ones; called once per `score`."""
        lengths = {text: len(self.tokenizer(self._prepared(text), verbose=False).input_ids) for text in set(texts)}
        cut = sum(lengths[text] > self.max_tokens for text in texts)
        if cut and not self.num_truncated:
            warnings.warn(
                f"{cut} of {len(texts)} texts are longer than the {self.max_tokens} tokens that {self.path} reads, "
                f"the longest {max(lengths.values())}: it judges by their beginnings.",
                stacklevel=5,
            )
        self.num_truncated += cut


class EmbeddingScorer(PairScorer):
    """A `PairScorer` that compares embeddings; its subclass gives `_see` and `_read`. A group's text is read once."""

    def _numbers(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        self._count_truncated(texts)
        distinct = {text: k for k, text in enumerate(dict.fromkeys(texts))}
        seen = self._in_chunks(pictures, self._see)
        read = self._in_chunks(list(distinct), self._read)
        seen, read = (torch.nn.functional.normalize(found.float(), dim=-1).cpu() for found in (seen, read))
        return self._scaled((seen * read[[distinct[text] for text in texts]]).sum(-1))

    def _see(self, pictures: Tensor) -> Tensor:
        """(B, D) of pictures."""
        raise NotImplementedError

    def _read(self, texts: list[str]) -> Tensor:
        """(len(texts), D)."""
        raise NotImplementedError

    def _scaled(self, cosines: Tensor) -> Tensor:
        return cosines
