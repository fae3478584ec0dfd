"""The policy as its own judge, through its understanding side."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import check_judge, pictures_of
from thinkdraw.types import Rollouts, Verdicts


@runtime_checkable
class Captioner(Protocol):
    """Mean log-likelihood of a text's tokens given a picture, nats per token.

    pictures: (B, H, W, 3) uint8, with B texts → (B,) float32; NaN = no verdict.
    """

    def log_likelihood(self, pictures: Tensor, texts: Sequence[str]) -> Tensor: ...


class CaptionLikelihoodReward(BaseReward):
    """How likely the policy itself finds the prompt as a caption of the picture.

    It needs a captioner: a frozen copy of the policy, since one that learns would move its own goal. Mean
    log-likelihood per token in nats, −∞..0, higher is better. NaN = the captioner gave no verdict.
    It compares pictures of one prompt only: some texts are likelier than others whatever the picture. Without a KL
    penalty it collapses. It is the self-reward of SUDER (arXiv 2506.07963) and of showlab's UniRL (arXiv 2505.23380).
    """

    name = "caption-likelihood"
    asks = ("captioner",)

    def __init__(self, captioner: Captioner):
        self.captioner = check_judge(Captioner, captioner)

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        texts = [prompt.text for prompt in rollouts.prompts]
        return Verdicts.of(self.captioner.log_likelihood(pictures_of(rollouts), texts))
