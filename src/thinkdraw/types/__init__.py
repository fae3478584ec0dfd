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
from thinkdraw.types.policy import Drawer, Finding, PictureSpec, Policy, TextSide
from thinkdraw.types.prompts import Prompt, Question, Relation
from thinkdraw.types.rollouts import Rollouts, Scored
from thinkdraw.types.sampling import Sampling, ThoughtFormat
from thinkdraw.types.segments import Context, Kept, Segment

__all__ = [
    "Prompt", "Question", "Relation",
    "Sampling", "ThoughtFormat", "Segment", "Context", "Kept", "Rollouts", "Scored",
    "Policy", "PictureSpec", "TextSide", "Finding", "Drawer",
    "Detection", "Detector", "Judge", "Questioner", "Scorer", "Request", "Writer", "Verdicts", "Reward",
]  # fmt: skip
