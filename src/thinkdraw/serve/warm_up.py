"""Judges two lab pictures before anybody asks.

The judge is then warm, its components are known, and a broken judge shows.
"""

import warnings

import numpy as np
import torch

from thinkdraw.lab.prompts import stream
from thinkdraw.lab.scenes import draw
from thinkdraw.types import Reward, Rollouts, Sampling


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
    """Make a group of two, each with a token of text and one of a picture."""
    example, rng = next(stream("geneval", "train", 0)), np.random.default_rng(0)
    pictures = np.stack([draw(example.scene(rng)) for _ in range(2)])
    segment = torch.tensor([[0, 1]] * 2, dtype=torch.int8)
    return Rollouts(
        prompts=(example.prompt,) * 2, prompt_ids=torch.zeros(2, 0).long(), prompt_mask=torch.zeros(2, 0).bool(),
        tokens=torch.zeros(2, 2).long(), is_image=segment == 1, segment=segment, mask=torch.ones(2, 2).bool(),
        log_probs=torch.zeros(2, 2), seeds=torch.zeros(2).long(), sampling=Sampling(), group_size=2,
        pictures=torch.from_numpy(pictures), thoughts=(example.prompt.text,) * 2,
    )  # fmt: skip
