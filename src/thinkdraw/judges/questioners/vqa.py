"""What small models that were trained to answer about pictures share: chunks, and P(yes) from two words' logits."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from thinkdraw.judges.questioners.yes_no import check_pairs


class VqaJudge:
    """A `Questioner` whose subclass gives `_answer` and sets the rest. max_pairs: (picture, question) pairs per pass.

    yes, no: each word's one token.
    """

    hard = False
    max_pairs: int
    yes: int
    no: int

    @torch.no_grad()
    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """pictures: (B, H, W, 3) uint8. → (B,) float32 P(yes) on the CPU."""
        check_pairs(pictures, questions)
        array = pictures.cpu().numpy()
        starts = range(0, len(questions), self.max_pairs)
        parts = [self._answer(array[i : i + self.max_pairs], questions[i : i + self.max_pairs]) for i in starts]
        return torch.cat(parts) if parts else torch.zeros(0)

    def _answer(self, pictures: np.ndarray, questions: Sequence[str]) -> Tensor:
        """pictures: (B, H, W, 3) array, at most max_pairs of them."""
        raise NotImplementedError

    def p_yes(self, logits: Tensor) -> Tensor:
        """Of (B, V) logits of the answer's first token: (B,) on the CPU, of yes against no."""
        # a / (a + b) of two softmax terms is the sigmoid of their logits' difference
        return torch.sigmoid((logits[:, self.yes] - logits[:, self.no]).float()).cpu()
