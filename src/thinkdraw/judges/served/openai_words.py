"""The probability that a served model's reply begins with given words (GenEval 2)."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from thinkdraw.judges.questioners.yes_no import check_pairs
from thinkdraw.judges.served.openai_judge import OpenAIJudge, first_token


class OpenAIWords(OpenAIJudge):
    """Gives the probability of first words of a reply, by a served chat model.

    An `OpenAIJudge` in mode "logprobs", whose other settings it takes. Only the `top_logprobs` most likely tokens are
    seen. A word that is not among them, or that is more than one token, adds nothing, so a value may lie below a local
    model's by their probability.
    """

    name = "openai-words"
    wants_yes_no = False

    def __init__(self, model: str, base_url: str, **settings: Any):
        super().__init__(model, base_url, "logprobs", **settings)

    def first_words(self, pictures: Tensor, texts: Sequence[str], strings: Sequence[Sequence[str]]) -> Tensor:
        """Sum the probabilities of the tokens that spell each row's strings.

        A string that is listed twice counts twice. pictures: (B, H, W, 3) uint8. texts: B messages, sent as they are.
        strings: B lists. → (B,) float32, NaN where no answer came.
        """
        check_pairs(pictures, texts)
        settings = {"max_tokens": 1, "logprobs": True, "top_logprobs": self.top_logprobs}
        pairs = zip(pictures.cpu().numpy(), texts)
        bodies = [partial(self._body, text, [picture], **settings) for picture, text in pairs]
        sums = []
        for reply, words in zip(self._send_all(bodies), strings, strict=True):
            likely = first_token(reply) if reply is not None else ()
            masses = {alternative.token: math.exp(alternative.logprob) for alternative in likely}
            sums.append(sum(masses.get(word, 0.0) for word in words) if masses else math.nan)
        return torch.tensor(sums, dtype=torch.float32)
