"""The trainable generator, as everything above it uses it."""

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
    """What a policy draws.

    height, width: pixels. num_tokens: image tokens of a whole picture. num_codes: entries of the codebook.
    """

    height: int
    width: int
    num_tokens: int
    num_codes: int


@dataclass(frozen=True)
class CheckItem:
    """One line of `thinkdraw check`: what was checked, the measured and the expected value."""

    name: str
    measured: str
    expected: str
    ok: bool


class TextSide(Protocol):
    """Texts ↔ token ids of a policy.

    pad: id that contexts are padded with. controls: ids of control tokens (begin-of-image, …), which no text may spell.
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

    def thought(self, text: str) -> list[int]:
        """Ids of a thought, without the token that ends it."""
        ...

    def thought_text(self, ids: Sequence[int]) -> str:
        """The text of a thought's ids, without special tokens."""
        ...

    def check(self) -> list[CheckItem]:
        """Look at the prompt's form and the special tokens, for `thinkdraw check`; may find nothing to say."""
        ...


class Policy(Protocol):
    """A generator that writes thoughts and draws. `policies/janus` is a family; `examples/my_policy` a minimal one.

    network: the module to train, whose forward pass `log_probs` is. It is replaced for a while where weights are sharded:
        by a twin with whole weights, to sample with.
    thought_formats: those that `sample` takes. sees: whether it answers questions about pictures.
    draws_from_pictures: whether it can be shown a picture before it draws.
    has_adapters: whether only adapters (LoRA) are trained; with them off the policy is its own reference.
    precision: of the forward pass, fp32 or bf16. text: the tokenizer's side. picture: what it draws.
    """

    network: nn.Module
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
        """How many tokens a row may have: prompt, thought and picture together."""
        ...

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
    ) -> Rollouts:
        """Sample `group_size` rollouts per prompt, prompt-major.

        seeds: (P·G,), one per rollout; None derives them from `seed` and the prompt's index. A rollout follows from its
        seed, whatever else is in the batch.
        decode: make pictures too. prefix: one rollout per prompt whose first prefix_lengths (P,) tokens are kept, with
        their log-probs and mask, and continued `group_size` times.
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
        """Make rollouts of given texts and pictures, to train on; no token is sampled, and log-probs are 0.

        The mask is True where a policy would have chosen the token.
        thoughts: B texts, ignored for `off`. image_tokens: (B, N). drop: (B,) bool, rows whose prompt and thought are
        blanked as in guidance's unconditional pass, and which train image tokens only.
        """
        ...

    def log_probs(self, rollouts: Rollouts) -> TokenLogProbs:
        """Score tokens under the distribution that they were sampled from, with gradient."""
        ...

    # Pictures

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """(B, N) image tokens of uint8 pictures (B, H, W, 3) of the policy's own size."""
        ...

    def decode_tokens(self, image_tokens: Tensor) -> Tensor:
        """uint8 pictures (B, H, W, 3) of image tokens (B, n ≤ N); where n < N the policy fills in the rest."""
        ...

    def code_vectors(self, image_tokens: Tensor) -> Tensor:
        """(B, N, D) unit vectors of image tokens (B, N), to compare pictures by: similar codes have similar vectors."""
        ...

    def picture_tokenizer_hash(self) -> str:
        """SHA-256 of the model that turns pictures into image tokens and back."""
        ...

    # Seeing; these raise UserError where `sees` is False.

    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """P(yes) (B,) for uint8 pictures (B, H, W, 3) and B questions."""
        ...

    def yes_logits(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Log-odds (B,) of P(yes), with gradient, in one forward pass."""
        ...

    def log_likelihood(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """(B,) mean log-likelihood per token, nats, of each text as a caption of its picture."""
        ...

    # The reference

    def make_reference(self, network: nn.Module | None = None) -> None:
        """Freeze a copy of the weights as they are now; with adapters there is nothing to copy.

        network: where `self.network` is in shards, the module with whole weights that scores for the reference.
        """
        ...

    def reference_weights(self) -> dict[str, Tensor]:
        """The weights that `make_reference` copied; empty with adapters."""
        ...

    def load_reference(self, weights: dict[str, Tensor]) -> None:
        """Restore the reference from `reference_weights`."""
        ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside, `log_probs` are the reference's; a policy with adapters is the reference in all that it does."""
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
        """Write a checkpoint, whole or not at all, that `load_policy` opens."""
        ...


class Drawer(Protocol):
    """What a benchmark needs of a generator: a policy, or something that chooses among its pictures."""

    @property
    def revision(self) -> str: ...

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, *, seeds: Sequence[int] | Tensor) -> Rollouts: ...
