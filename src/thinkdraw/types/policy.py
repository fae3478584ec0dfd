"""The protocol of a trainable generator, as everything above `policies` uses it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from thinkdraw.types.prompts import Prompt
from thinkdraw.types.rollouts import Rollouts, TokenLogProbs
from thinkdraw.types.sampling import Sampling, ThoughtFormat


@dataclass(frozen=True)
class PictureSpec:
    """The size of a policy's pictures, in pixels and in tokens.

    height, width: pixels.
    num_tokens: image tokens of a whole picture.
    num_codes: entries of the codebook, so image tokens are 0 .. num_codes − 1.
    """

    height: int
    width: int
    num_tokens: int
    num_codes: int


@dataclass(frozen=True)
class CheckItem:
    """One line of `thinkdraw check`: the measured and the expected value."""

    name: str
    measured: str
    expected: str
    ok: bool


class TextSide(Protocol):
    """Converts texts to a policy's token ids and back.

    pad: id that fills up contexts.
    controls: ids of control tokens (begin-of-image, …), which no text may spell.
    vocabulary_hash: SHA-256 of the vocabulary with its ids.
    """

    @property
    def pad(self) -> int: ...

    @property
    def controls(self) -> frozenset[int]: ...

    @property
    def vocabulary_hash(self) -> str: ...

    def prompt(self, text: str) -> list[int]:
        """Encode a prompt as the context before the first token.

        Raises UserError for an empty text and for one that spells a control token.
        """
        ...

    def thought(self, text: str) -> list[int]:
        """Encode a thought, without the token that ends it."""
        ...

    def thought_text(self, ids: Sequence[int]) -> str:
        """Decode a thought's ids, without special tokens."""
        ...

    def check(self) -> list[CheckItem]:
        """Check the prompt's form and the special tokens, for `thinkdraw check`."""
        ...


class Policy(Protocol):
    """A generator that writes thoughts and draws pictures.

    `policies/janus` is a full family, `examples/my_policy` a minimal one.
    network: the module to train; its forward pass is `log_probs`. Where weights are sharded, it is replaced for a
        while by a twin with full weights, which samples.
    thought_formats: the formats that `sample` accepts.
    sees: whether the policy answers questions about pictures.
    draws_from_pictures: whether a picture can be shown to it before it draws.
    has_adapters: whether only adapters (LoRA) are trained. With adapters off, the policy is its own reference.
    precision: of the forward pass, fp32 or bf16.
    text: the tokenizer's side. picture: the size of its pictures.
    drawing: how it was trained to draw; None where nothing is recorded. `load_policy` sets it.
    """

    network: nn.Module
    drawing: Sampling | None
    precision: str

    @property
    def thought_formats(self) -> Sequence[ThoughtFormat]: ...

    @property
    def sees(self) -> bool: ...

    @property
    def draws_from_pictures(self) -> bool: ...

    @property
    def has_adapters(self) -> bool: ...

    @property
    def text(self) -> TextSide: ...

    @property
    def picture(self) -> PictureSpec: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights in use."""
        ...

    @property
    def max_positions(self) -> int:
        """The most tokens a row may have: prompt, thought and picture together."""
        ...

    @property
    def revision(self) -> str:
        """Short hash of the weights; it changes with every optimiser step."""
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
    ) -> Rollouts:
        """Sample `group_size` rollouts per prompt, prompt-major.

        A rollout depends on its own seed alone, whatever else is in the batch.
        seeds: (P·G,), one per rollout. None derives them from `seed` and the prompt's index.
        decode: make pictures too.
        prefix: one rollout per prompt. Its first prefix_lengths (P,) tokens are kept with their log-probs and mask,
            and continued `group_size` times.
        """
        ...

    def teacher_forced(
        self,
        prompts: Sequence[Prompt],
        thoughts: Sequence[str],
        image_tokens: Tensor,
        sampling: Sampling,
        drop: Tensor | None = None,
    ) -> Rollouts:
        """Make rollouts of known thoughts and pictures, to train on.

        No token is sampled, and log-probs are 0. The mask is True where a policy would have chosen the token.
        thoughts: B texts, ignored for `off`. image_tokens: (B, N).
        drop: (B,) bool. In these rows prompt and thought are blanked, as in guidance's unconditional pass, and only
            the image tokens are trained.
        """
        ...

    def log_probs(self, rollouts: Rollouts) -> TokenLogProbs:
        """Compute log-probs in the distribution sampled from, with gradient."""
        ...

    # Pictures

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """Encode pictures as image tokens (B, N).

        pictures: (B, H, W, 3) uint8, of the policy's own size.
        """
        ...

    def decode_tokens(self, image_tokens: Tensor) -> Tensor:
        """Decode image tokens (B, n ≤ N) to uint8 pictures (B, H, W, 3).

        Where n < N the policy fills in the rest.
        """
        ...

    def code_vectors(self, image_tokens: Tensor) -> Tensor:
        """Look up the unit vectors (B, N, D) of image tokens (B, N).

        Similar codes have similar vectors, so pictures can be compared by them.
        """
        ...

    def picture_tokenizer_hash(self) -> str:
        """Hash (SHA-256) the model that turns pictures into image tokens and back."""
        ...

    # Questions about pictures; these raise UserError where `sees` is False.

    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Return P(yes) (B,) for uint8 pictures (B, H, W, 3) and B questions."""
        ...

    def yes_logits(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Return the log-odds (B,) of P(yes), with gradient, in one forward pass."""
        ...

    def log_likelihood(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """Rate texts as captions of pictures: (B,) mean log-likelihood per token, nats."""
        ...

    # The reference

    def make_reference(self, network: nn.Module | None = None) -> None:
        """Freeze a copy of the current weights as the reference; adapters need no copy.

        network: where `self.network` is sharded, the module with full weights that scores for the reference.
        """
        ...

    def reference_weights(self) -> dict[str, Tensor]:
        """Return the weights that `make_reference` copied; empty with adapters."""
        ...

    def load_reference(self, weights: dict[str, Tensor]) -> None:
        """Restore the reference from `reference_weights`."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Let `log_probs` be the reference's inside the `with` block.

        A policy with adapters becomes the reference in everything it does.
        """
        ...

    # Training

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The repeated layers of `network`, which are sharded one by one."""
        ...

    def checkpoint_layers(self) -> None:
        """Recompute layers in the backward pass, to save memory."""
        ...

    def freeze(self) -> None:
        """Switch off the gradients of all weights, for a policy that is used as a judge."""
        ...

    def save(self, directory: Path) -> None:
        """Write a checkpoint that `load_policy` opens, completely or not at all."""
        ...


class Drawer(Protocol):
    """What a benchmark draws with: a policy, or a search among its pictures."""

    @property
    def revision(self) -> str: ...

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seeds: Sequence[int] | Tensor) -> Rollouts:
        """Sample one rollout per prompt, with its picture. seeds: (P,)."""
        ...
