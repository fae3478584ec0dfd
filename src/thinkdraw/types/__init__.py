"""The types that all rooms share.

Prompts, rollouts and verdicts are data; policies, judges and rewards are protocols.
"""

from thinkdraw.types.judges import (
    Detection,
    Detector,
    Judge,
    Questioner,
    Request,
    Reward,
    Scorer,
    Verdicts,
    Writer,
)
from thinkdraw.types.policy import CheckItem, Drawer, PictureSpec, Policy, TextSide
from thinkdraw.types.prompts import Prompt, Question, Relation
from thinkdraw.types.rollouts import Rollouts, TokenLogProbs
from thinkdraw.types.sampling import Sampling, SamplingOverrides, ThoughtFormat
from thinkdraw.types.segments import AllowedTokens, Context, Segment

__all__ = [
    "Prompt", "Question", "Relation",
    "Sampling", "SamplingOverrides", "ThoughtFormat", "Segment", "Context", "AllowedTokens", "Rollouts", "TokenLogProbs",
    "Policy", "PictureSpec", "TextSide", "CheckItem", "Drawer",
    "Detection", "Detector", "Judge", "Questioner", "Scorer", "Request", "Writer", "Verdicts", "Reward",
]  # fmt: skip
