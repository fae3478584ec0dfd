"""How well a picture fits its prompt's text: a preference-style judge, which needs no clauses and no questions."""

from torch import Tensor

from thinkdraw.types import Rollouts, Scorer


class ClipScoreReward:
    """The scorer's number for a picture and its prompt's text, raw: with a CLIP the cosine similarity, in −1..1.

    scorer: a `Scorer`, for instance `LabClipScorer`. One call scores a batch.
    """

    name = "lab-clip"

    def __init__(self, scorer: Scorer):
        if not isinstance(scorer, Scorer):
            raise TypeError(f"{type(scorer).__name__} has no .score(pictures, texts): give a scorer.")
        self.scorer = scorer

    def __call__(self, rollouts: Rollouts) -> Tensor:
        if rollouts.pictures is None:
            raise ValueError("rollouts without pictures: sample with decode=True, or decode before the reward.")
        return self.scorer.score(rollouts.pictures, [prompt.text for prompt in rollouts.prompts])
