"""Judges' answers → one number per picture.

`rules.py` holds the published rules of benchmarks (counts, colours, relations) as pure functions, so that a metric and
a reward can never disagree about what a correct picture is.
"""

import difflib
import inspect
from importlib import import_module
from typing import Any

from thinkdraw.errors import UserError
from thinkdraw.types import Reward

# Name → class; a string, so that a judge's libraries are imported when a reward is loaded and not before.
REWARDS = {
    "lab-clip": "thinkdraw.rewards.clip_score:ClipScoreReward",
    "lab-detector": "thinkdraw.rewards.lab_detector:LabDetectorReward",
    "lab-judge": "thinkdraw.rewards.lab_judge:LabJudgeReward",
}


def load_reward(name: str, **settings: Any) -> Reward:
    """The reward called `name`, or of the class at a dotted path `pkg.mod:Class`, made with its settings.

    Raises UserError for an unknown name, a path without such a class, and settings that the class does not take.
    """
    path = REWARDS.get(name, name)
    if ":" not in path:
        near = difflib.get_close_matches(name, REWARDS, n=2, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(REWARDS))}."
        raise UserError(f"unknown reward {name!r}: {hint} A class of your own works as pkg.mod:Class.")
    module, _, attribute = path.partition(":")
    try:
        make = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise UserError(f"reward {name!r}: cannot import {error.name}. Install it, or correct the path.") from error
    except AttributeError as error:
        raise UserError(f"reward {name!r}: {module} has no {attribute}. Correct the part after the colon.") from error
    signature = inspect.signature(make)
    try:
        signature.bind(**settings)
    except TypeError as error:
        raise UserError(
            f"reward {name!r}: {error}. It takes {', '.join(signature.parameters) or 'no settings'}."
        ) from error
    return make(**settings)
