"""Rewards from a scorer of picture and text, such as CLIP."""

from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import pictures_of
from thinkdraw.types import Rollouts, Scorer, Verdicts


class ScoreReward(BaseReward):
    """How well the picture fits its prompt's text, by a scorer such as CLIP.

    It needs a scorer, and neither clauses nor questions in the prompt. The scorer's number is passed on unchanged: a
    cosine similarity in −1..1 from CLIP, an unbounded number from ImageReward. Higher is better. NaN = no verdict.
    scorer: a `Scorer`, for instance `ClipScorer`; it is called once for the whole batch.
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
    """How well the picture fits its prompt's text, by the lab's own CLIP.

    It is `ScoreReward` under the name `lab-clip`, which opens the lab's CLIP where no scorer is named.
    """

    name = "lab-clip"
