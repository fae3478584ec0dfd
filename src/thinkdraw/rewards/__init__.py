"""Rewards: they turn judges' answers into one number per picture.

Published rules of benchmarks (counts, colours, relations) are pure functions, such as those in `rules.py`. Benchmarks
and rewards both call them, so they cannot disagree about what a correct picture is.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from thinkdraw.errors import UserError
from thinkdraw.runtime.registry import find, make
from thinkdraw.types import Reward

# Name → class; a string, so that a judge's libraries are imported when a reward is loaded and not before.
REWARDS = {
    "caption-likelihood": "thinkdraw.rewards.papers.caption_likelihood:CaptionLikelihoodReward",
    "combined": "thinkdraw.rewards.combined:CombinedReward",
    "count": "thinkdraw.rewards.objects.rewards:CountReward",
    "http": "thinkdraw.serve.reward:HttpReward",
    "lab-clip": "thinkdraw.rewards.clip_score:ClipScoreReward",
    "lab-detector": "thinkdraw.rewards.lab_detector:LabDetectorReward",
    "lab-judge": "thinkdraw.rewards.lab_judge:LabJudgeReward",
    "lab-thought-faithful": "thinkdraw.rewards.thoughts.faithful:LabThoughtFaithfulReward",
    "metric:compbench": "thinkdraw.benchmarks.compbench.reward:CompBenchMetric",
    "metric:dpg": "thinkdraw.benchmarks.dpg.reward:DpgMetric",
    "metric:geneval": "thinkdraw.benchmarks.geneval.reward:GenEvalMetric",
    "objects": "thinkdraw.rewards.objects.rewards:ObjectsReward",
    "orm": "thinkdraw.rewards.vqa_yes:OrmReward",
    "pairwise": "thinkdraw.rewards.papers.pairwise:PairwiseReward",
    "questions": "thinkdraw.rewards.questions:QuestionsReward",
    "reasongen": "thinkdraw.rewards.papers.reasongen:ReasonGenReward",
    "relation": "thinkdraw.rewards.objects.rewards:RelationReward",
    "score": "thinkdraw.rewards.clip_score:ScoreReward",
    "t2i-r1": "thinkdraw.rewards.papers.t2i_r1:t2i_r1",
    "thought-faithful": "thinkdraw.rewards.thoughts.faithful:ThoughtFaithfulReward",
    "thought-format": "thinkdraw.rewards.thoughts.form:ThoughtFormatReward",
    "thought-length": "thinkdraw.rewards.thoughts.form:ThoughtLengthReward",
    "unified-reward": "thinkdraw.rewards.papers.unified_reward:UnifiedRewardReward",
    "vqa-yes": "thinkdraw.rewards.vqa_yes:VqaYesReward",
}


def load_reward(name: str, **settings: Any) -> Reward:
    """Make the reward with this registry name or dotted path `pkg.mod:Class`.

    A dotted path may also name the reward itself: a function or object whose first parameter is called `rollouts`.
    Raises UserError for an unknown name, a path that leads nowhere, and settings that the reward does not take.
    """
    from thinkdraw.rewards.user_rewards import as_reward

    maker = find("reward", REWARDS, name)
    if not inspect.isclass(maker) and next(iter(inspect.signature(maker).parameters), "") == "rollouts":
        return as_reward(partial(maker, **settings) if settings else maker, getattr(maker, "__name__", name))
    if inspect.isfunction(maker) and name not in REWARDS and not settings and len(required := _required(maker)) == 1:
        raise UserError(
            f"reward {name!r} needs {required[0]}. Name that parameter rollouts if the function is the reward itself, or give "
            f"the setting {required[0]}."
        )
    reward = make("reward", REWARDS, name, settings)
    if not callable(reward):
        raise UserError(
            f"reward {name!r} made a {type(reward).__name__}, which cannot be called with rollouts. Give it a __call__(rollouts)."
        )
    return as_reward(reward, name.rpartition(":")[2])


def _required(function: Callable[..., Any]) -> list[str]:
    """Return the names of the parameters that have no default."""
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
