"""GIT's visual question answering: the judge that T2I-R1 asks about attributes."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import GitForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from thinkdraw.judges.loading import digest, read_image_processor, read_model, read_tokenizer
from thinkdraw.judges.questioners.vqa import VqaJudge
from thinkdraw.judges.questioners.yes_no import single_token
from thinkdraw.runtime.device import pick_device


class GitVqaJudge(VqaJudge):
    """Answers yes-or-no questions with GIT, as T2I-R1 does; gives P(yes).

    P(yes) = p(yes) / (p(yes) + p(no)), in 0..1, of the token after [CLS] and the question ("red dog?").
    The picture stands before the text, prepared as the checkpoint's preprocessor_config.json says. A question longer
    than the tokenizer's limit is cut there.

    path: a `GitForCausalLM` folder or Hugging Face model id. device: auto takes a GPU if there is one. max_pairs:
    (picture, question) pairs per pass.
    Raises UserError for a checkpoint that is absent, damaged, of another kind, or without yes or no.
    Jiang et al. 2025 (arXiv 2505.00703, its reward_git.py); Wang et al. 2022 (arXiv 2205.14100).
    """

    name = "git-vqa"

    def __init__(self, path: str = "microsoft/git-large-vqav2", device: str = "auto", max_pairs: int = 32):
        self.path, self.device, self.max_pairs = str(path), pick_device(device), max_pairs
        self.model = read_model(self.path, {"git": GitForCausalLM}).to(self.device)
        self.tokenizer: Any = read_tokenizer(self.path)  # Any: transformers types its special token ids too widely
        self.image_processor = read_image_processor(self.path, CLIPImageProcessorPil)
        self.yes, self.no = (single_token(self.tokenizer, word, self.path) for word in ("yes", "no"))

    @cached_property
    def revision(self) -> str:
        """Short hash of the weights."""
        return digest(self.name, self.model)

    def _answer(self, pictures: np.ndarray, questions: Sequence[str]) -> Tensor:
        pixels = self.image_processor(list(pictures), return_tensors="pt").pixel_values.to(self.device)
        rows = [torch.tensor(self._ids(question)) for question in questions]
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.tokenizer.pad_token_id)
        hidden = self.model.git(
            input_ids=ids.to(self.device), attention_mask=mask.long().to(self.device), pixel_values=pixels
        ).last_hidden_state
        # The picture's tokens stand first; padding is on the right, where causal attention hides it.
        ends = hidden.shape[1] - ids.shape[1] + lengths - 1
        last = hidden[torch.arange(len(rows), device=self.device), ends.to(self.device)]
        return self.p_yes(self.model.output(last))

    def _ids(self, question: str) -> list[int]:
        limit = min(self.tokenizer.model_max_length, self.model.config.max_position_embeddings) - 1
        ids = self.tokenizer(question, add_special_tokens=False, truncation=True, max_length=limit).input_ids
        return [self.tokenizer.cls_token_id, *ids]
