"""Judges two lab pictures before anybody asks.

The judge is then warm, its components are known, and a broken judge shows.
"""

import warnings

import numpy as np
import torch

from thinkdraw.lab.prompts import stream
from thinkdraw.lab.scenes import draw
from thinkdraw.rewards.judging import finished_rollouts
from thinkdraw.types import Reward, Rollouts


def warm_up(reward: Reward) -> list[str] | None:
    """Judge two lab pictures; return the names of the reward's components.

    None where it cannot judge a lab prompt; a warning says why.
    """
    try:
        return list(reward(_two_rollouts()).parts)
    except Exception as error:
        warnings.warn(
            f"{reward.name} has not judged a picture of the lab: {' '.join(str(error).split())}", stacklevel=2
        )
        return None


def _two_rollouts() -> Rollouts:
    """Make a group of two, each with a thought."""
    example, rng = next(stream("geneval", "train", 0)), np.random.default_rng(0)
    pictures = np.stack([draw(example.scene(rng)) for _ in range(2)])
    prompts, thoughts = [example.prompt] * 2, [example.prompt.text] * 2
    return finished_rollouts(prompts, torch.from_numpy(pictures), thoughts, group_size=2)
