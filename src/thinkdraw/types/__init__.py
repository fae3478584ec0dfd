"""The types that travel between rooms: prompts, rollouts, verdicts, and the protocols of policies, judges and rewards."""

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
from thinkdraw.types.policy import Drawer, PictureSpec, Policy, TextSide
from thinkdraw.types.prompts import Prompt, Question, Relation
from thinkdraw.types.rollouts import Kept, Rollouts, Sampling, Scored, ThoughtFormat

__all__ = [
    "Prompt", "Question", "Relation",
    "Sampling", "ThoughtFormat", "Kept", "Rollouts", "Scored",
    "Policy", "PictureSpec", "TextSide", "Drawer",
    "Detection", "Detector", "Judge", "Questioner", "Scorer", "Request", "Writer", "Verdicts", "Reward",
]  # fmt: skip
