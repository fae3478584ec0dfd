"""The policy as its own judge: how likely its understanding side finds the prompt as a caption of the picture."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import held_to, pictures_of
from thinkdraw.types import Rollouts, Verdicts


@runtime_checkable
class Captioner(Protocol):
    """Mean log-likelihood of a text's tokens given the picture, nats per token; NaN = no verdict. → (B,) float32.

    pictures: (B, H, W, 3) uint8, B texts.
    """

    def log_likelihood(self, pictures: Tensor, texts: Sequence[str]) -> Tensor: ...


class CaptionLikelihoodReward(BaseReward):
    """Mean log-likelihood per token of the prompt's text as a caption of the picture, in nats, −∞..0, higher is better.

    NaN where the captioner has no verdict. captioner: a frozen copy of the policy; one that learns would move its own goal.
    It compares pictures of one prompt and not prompts, whose texts are more or less likely in themselves. Without a KL
    penalty it collapses. As the self-reward of SUDER (arXiv 2506.07963) and of showlab's UniRL (arXiv 2505.23380).
    """

    name = "caption-likelihood"
    asks = ("captioner",)

    def __init__(self, captioner: Captioner):
        self.captioner = held_to(Captioner, captioner)

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        texts = [prompt.text for prompt in rollouts.prompts]
        return Verdicts.of(self.captioner.log_likelihood(pictures_of(rollouts), texts))
