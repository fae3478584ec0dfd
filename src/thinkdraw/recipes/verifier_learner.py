"""Trainable questioners: a policy, or a transformers model that sees pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from thinkdraw.images import to_pil
from thinkdraw.judges.questioners.picture_chat import read_chat_model
from thinkdraw.judges.questioners.yes_no import QUESTION_FORMAT, yes_no_ids
from thinkdraw.policies import is_policy, load_policy
from thinkdraw.policies.lora import LoraSettings, add_lora, learned_weights, merged_weights
from thinkdraw.runtime.files import atomic_directory
from thinkdraw.runtime.inputs.hashing import content_digest


class Learner(Protocol):
    """A model that learns to answer yes or no to questions about pictures.

    network: the module whose weights are trained.
    """

    network: nn.Module

    @property
    def revision(self) -> str: ...

    def yes_logits(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Compute log-odds of yes, (B,), with gradient. pictures: (B, H, W, 3) uint8."""
        ...

    def checkpoint_layers(self) -> None: ...

    def save(self, directory: Path) -> None: ...


def open_learner(path: str, device: str, dtype: str, precision: str, lora: LoraSettings | None) -> Learner:
    """Open a policy with a trainable vision side, or a chat model that sees pictures.

    Raises UserError.
    """
    if is_policy(path):
        return load_policy(path, device=device, dtype=dtype, lora=lora, precision=precision, train_understanding=True)
    return ChatLearner(path, device, lora)


class ChatLearner:
    """A chat model that sees pictures, asked as judge `vlm` asks it, with gradient.

    Rows go through the model one by one: chat models differ in how they pad, and one row needs no padding.
    lora: adapters on the language model; None trains all weights.
    """

    def __init__(self, path: str, device: str, lora: LoraSettings | None) -> None:
        model, self.processor = read_chat_model(path)
        self.yes, self.no = (ids.to(device) for ids in yes_no_ids(self.processor.tokenizer, path))
        self.model = model.to(device).requires_grad_(lora is None)
        self.adapters = add_lora(self.model, lora) if lora else None
        self.network: nn.Module = self.model
        self.device = device

    def checkpoint_layers(self) -> None:
        """Recompute layers in the backward pass, to save memory."""
        self.model.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def revision(self) -> str:
        """Hash of the trained weights; of large ones about every n-th number, to be quick.

        That is enough, since a step changes all of them.
        """
        weights = [weight.flatten() for weight in learned_weights(self.model).values()]
        return content_digest(flat[:: max(1, len(flat) // 4096)] for flat in weights)[:12]

    def yes_logits(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Compute log-odds of yes, (B,), with gradient. pictures: (B, H, W, 3) uint8."""
        return torch.cat([self._row(p, q) for p, q in zip(pictures.cpu().numpy(), questions, strict=True)])

    def _row(self, picture: np.ndarray, question: str) -> Tensor:
        text = QUESTION_FORMAT.replace("{question}", question)
        content = [{"type": "image", "image": to_pil(picture)}, {"type": "text", "text": text}]
        inputs = self.processor.apply_chat_template(
            [[{"role": "user", "content": content}]], add_generation_prompt=True, tokenize=True, return_dict=True,
            return_tensors="pt",
        )  # fmt: skip
        last = self.model(**inputs.to(self.device, self.model.dtype)).logits[:, -1].float()
        return last[:, self.yes].logsumexp(1) - last[:, self.no].logsumexp(1)

    def save(self, directory: Path) -> None:
        """Write a folder that judge `vlm` loads; adapters are merged into the weights."""
        with atomic_directory(Path(directory)) as folder:
            self.model.save_pretrained(folder, state_dict=merged_weights(self.model))
            self.processor.save_pretrained(folder)
