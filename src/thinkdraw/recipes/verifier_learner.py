"""Questioners that can be trained: a policy's understanding side, or any image-text-to-text model of transformers."""

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
    """network: what is trained. yes_logits: (B,) log-odds of yes, with gradient, for uint8 pictures (B, H, W, 3)."""

    network: nn.Module

    @property
    def revision(self) -> str: ...

    def yes_logits(self, pictures: Tensor, questions: Sequence[str]) -> Tensor: ...

    def checkpoint_layers(self) -> None: ...

    def save(self, directory: Path) -> None: ...


def open_learner(path: str, device: str, dtype: str, precision: str, lora: LoraSettings | None) -> Learner:
    """A policy with its vision side trained too, or a chat model that sees pictures. Raises UserError."""
    if is_policy(path):
        return load_policy(path, device=device, dtype=dtype, lora=lora, precision=precision, train_understanding=True)
    return ChatLearner(path, device, lora)


class ChatLearner:
    """What judge `vlm` asks, with gradient; its rows go through the model one by one, so that none needs padding.

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
        self.model.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def revision(self) -> str:
        weights = [weight.flatten() for weight in learned_weights(self.model).values()]
        return content_digest(flat[:: max(1, len(flat) // 4096)] for flat in weights)[:12]

    def yes_logits(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
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
        """A directory that judge `vlm` loads; adapters are merged into the weights."""
        with atomic_directory(Path(directory)) as folder:
            self.model.save_pretrained(folder, state_dict=merged_weights(self.model))
            self.processor.save_pretrained(folder)
