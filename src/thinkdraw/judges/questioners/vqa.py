"""The base of small question-answering models: chunks, P(yes) from two logits."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from thinkdraw.judges.questioners.yes_no import check_pairs


class VqaJudge:
    """A `Questioner` that works in chunks; its subclass gives `_answer` and the rest.

    max_pairs: (picture, question) pairs per pass. yes, no: the one token of each word.
    """

    hard = False
    max_pairs: int
    yes: int
    no: int

    @torch.no_grad()
    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Answer a question about each picture: (B, H, W, 3) uint8 → (B,) float32 P(yes)."""
        check_pairs(pictures, questions)
        array = pictures.cpu().numpy()
        starts = range(0, len(questions), self.max_pairs)
        chunks = [self._answer(array[i : i + self.max_pairs], questions[i : i + self.max_pairs]) for i in starts]
        return torch.cat(chunks) if chunks else torch.zeros(0)

    def _answer(self, pictures: np.ndarray, questions: Sequence[str]) -> Tensor:
        """Answer at most `max_pairs` questions. pictures: (B, H, W, 3) array."""
        raise NotImplementedError

    def p_yes(self, logits: Tensor) -> Tensor:
        """Turn (B, V) logits of the first token into P(yes) against no: (B,) on the CPU."""
        # p(yes) / (p(yes) + p(no)) of one softmax is the sigmoid of the two logits' difference: the rest cancels.
        return torch.sigmoid((logits[:, self.yes] - logits[:, self.no]).float()).cpu()
