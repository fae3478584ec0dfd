"""The probability that a local model's reply begins with given words (GenEval 2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from thinkdraw.judges.questioners.vlm import VlmJudge
from thinkdraw.judges.questioners.yes_no import check_pairs
from thinkdraw.types import Request


class VlmWords(VlmJudge):
    """Gives the probability of first words of a reply, by a local chat model.

    A `VlmJudge`, whose settings it takes: softmax over the whole vocabulary at the reply's first token, as GenEval 2
    (arXiv 2512.16853).
    """

    name = "vlm-words"

    @torch.no_grad()
    def first_words(self, pictures: Tensor, texts: Sequence[str], strings: Sequence[Sequence[str]]) -> Tensor:
        """Sum the probabilities of the first tokens of each row's strings.

        A string that is listed twice counts twice. pictures: (B, H, W, 3) uint8. texts: B messages, sent as they are.
        strings: B lists. → (B,) float32, NaN where the model's numbers are not finite.
        """
        check_pairs(pictures, texts)
        array = pictures.cpu().numpy()
        requests = [Request(text, (picture,)) for picture, text in zip(array, texts)]
        sums = torch.full((len(requests),), torch.nan)
        for rows in self._batches(requests):
            logits = self._first_logits([requests[row] for row in rows])
            probs = logits.float().softmax(-1).cpu()
            for index, row in enumerate(rows):
                sums[row] = probs[index, [self._first_token(text) for text in strings[row]]].sum()
        return sums

    def _first_token(self, text: str) -> int:
        return self.processor.tokenizer.encode(text, add_special_tokens=False)[0]
