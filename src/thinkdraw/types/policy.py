"""The trainable generator, as everything above it uses it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from thinkdraw.types.prompts import Prompt
from thinkdraw.types.rollouts import Rollouts, Scored
from thinkdraw.types.sampling import Sampling


@dataclass(frozen=True)
class PictureSpec:
    """What a policy draws. size: pixels a side. num_tokens: image tokens of a whole picture. num_codes: different ones."""

    size: int
    num_tokens: int
    num_codes: int


class TextSide(Protocol):
    """Texts ↔ token ids of a policy.

    pad: id that contexts are padded with. controls: ids with a meaning of their own, which no text may spell.
    vocabulary_hash: SHA-256 of the vocabulary with its ids.
    """

    @property
    def pad(self) -> int: ...

    @property
    def controls(self) -> frozenset[int]: ...

    @property
    def vocabulary_hash(self) -> str: ...

    def prompt(self, text: str) -> list[int]:
        """The context of a prompt before the first token. Raises UserError for an empty text, or a control token."""
        ...

    def thought(self, text: str) -> list[int]: ...

    def thought_text(self, ids: Sequence[int]) -> str: ...


class Policy(Protocol):
    """A generator that writes thoughts and draws. `policies/janus` is a family; `examples/my_policy` a minimal one.

    network: the module to train; a wrapped one (FSDP) may take its place. text, picture: its two sides.
    thinks, sees, draws_from_pictures: what it can do: write thoughts, answer questions about pictures, be shown a
    picture before it draws. precision: of the forward pass, fp32 or bf16. max_positions: tokens of a whole row.
    """

    network: nn.Module
    precision: str
    thinks: bool
    sees: bool
    draws_from_pictures: bool

    @property
    def text(self) -> TextSide: ...

    @property
    def picture(self) -> PictureSpec: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        ...

    @property
    def max_positions(self) -> int: ...

    @property
    def revision(self) -> str:
        """Short hash of the weights: another after every optimiser step."""
        ...

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        *,
        group_size: int = 1,
        seeds: Sequence[int] | Tensor | None = None,
        seed: int = 0,
        decode: bool = True,
        prefix: Rollouts | None = None,
        prefix_lengths: Tensor | None = None,
    ) -> Rollouts: ...

    def teacher_forced(
        self,
        prompts: Sequence[Prompt],
        thoughts: Sequence[str],
        image_tokens: Tensor,
        sampling: Sampling,
        drop: Tensor | None = None,
    ) -> Rollouts: ...

    def log_probs(self, rollouts: Rollouts) -> Scored: ...

    # Pictures

    def encode_pictures(self, pictures: Tensor) -> Tensor: ...

    def decode_tokens(self, image_tokens: Tensor) -> Tensor: ...

    def code_vectors(self, image_tokens: Tensor) -> Tensor: ...

    def picture_tokenizer_hash(self) -> str:
        """SHA-256 of what turns pictures into image tokens."""
        ...

    # Seeing

    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor: ...

    def log_likelihood(self, pictures: Tensor, texts: Sequence[str]) -> Tensor: ...

    # The reference

    def make_reference(self) -> None: ...

    def reference_weights(self) -> dict[str, Tensor]: ...

    def load_reference(self, weights: dict[str, Tensor]) -> None: ...

    def reference(self) -> AbstractContextManager[None]: ...

    # Training

    def checkpoint_layers(self) -> None:
        """Recompute layers in the backward pass, to save memory."""
        ...

    def freeze(self) -> None:
        """Want no gradients any more: the policy judges."""
        ...

    def save(self, directory: Path) -> None: ...


class Drawer(Protocol):
    """What a benchmark needs of a generator: a policy, or something that chooses among its pictures."""

    @property
    def revision(self) -> str: ...

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seeds: Sequence[int] | Tensor) -> Rollouts: ...
