"""How well a picture fits its prompt's text: a preference-style judge, which needs no clauses and no questions."""

from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import pictures_of
from thinkdraw.types import Rollouts, Scorer, Verdicts


class ScoreReward(BaseReward):
    """The scorer's number for a picture and its prompt's text, raw: a CLIP's cosine similarity in −1..1, ImageReward's
    unbounded one, whatever the scorer says of itself; higher is better. NaN where the scorer has no verdict.

    scorer: a `Scorer`, for instance `ClipScorer`. One call scores a batch.
    """

    name = "score"
    asks = ("scorer",)

    def __init__(self, scorer: Scorer):
        if not isinstance(scorer, Scorer):
            raise TypeError(f"{type(scorer).__name__} has no .score(pictures, texts): give a scorer.")
        self.scorer = scorer

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        texts = [prompt.text for prompt in rollouts.prompts]
        return Verdicts.of(self.scorer.score(pictures_of(rollouts), texts))


class ClipScoreReward(ScoreReward):
    """`ScoreReward` with the lab's CLIP."""

    name = "lab-clip"
