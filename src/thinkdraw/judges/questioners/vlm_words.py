"""The probability that a local model's reply begins with one of several words, as GenEval 2 asks for it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from thinkdraw.judges.questioners.vlm import VlmJudge
from thinkdraw.judges.questioners.yes_no import check_pairs
from thinkdraw.types import Request


class VlmWords(VlmJudge):
    """`VlmJudge` that also gives the probabilities of other first words than yes and no.

    (arXiv 2512.16853): softmax over the whole vocabulary at the first place of the reply.
    """

    name = "vlm-words"

    @torch.no_grad()
    def first_words(self, pictures: Tensor, texts: Sequence[str], strings: Sequence[Sequence[str]]) -> Tensor:
        """Sum over a row's strings of the probability of each one's first token, as often as it stands there.

        pictures: (B, H, W, 3) uint8. texts: B messages, sent as they are. strings: B lists. → (B,) float32, NaN where the
        model's numbers are not finite.
        """
        check_pairs(pictures, texts)
        array = pictures.cpu().numpy()
        requests = [Request(text, (picture,)) for picture, text in zip(array, texts)]
        found = torch.full((len(requests),), torch.nan)
        for rows in self._batches(requests):
            logits = self._first_logits([requests[row] for row in rows])
            probs = logits.float().softmax(-1).cpu()
            for place, row in enumerate(rows):
                found[row] = probs[place, [self._first_token(text) for text in strings[row]]].sum()
        return found

    def _first_token(self, text: str) -> int:
        return self.processor.tokenizer.encode(text, add_special_tokens=False)[0]
