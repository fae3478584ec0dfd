"""Opening a reward by name, with the frozen judge that it asks."""

from typing import Any

from thinkdraw.judges.clip import LabClipScorer
from thinkdraw.recipes.training import load_trained
from thinkdraw.rewards import load_reward
from thinkdraw.types import Reward

ASKS_A_POLICY = {"lab-judge"}
ASKS_A_CLIP = {"lab-clip"}


def open_reward(name: str, **settings: Any) -> Reward:
    """`load_reward`, where the judge may be named, to be loaded frozen: `lab` (the default) or any checkpoint.

    `lab-judge` takes it as `questioner`, a policy; `lab-clip` as `scorer`, a CLIP.
    """
    if name in ASKS_A_POLICY:
        questioner = settings.get("questioner", "lab")
        if isinstance(questioner, str):
            policy = load_trained(questioner)
            policy.model.requires_grad_(False)
            settings["questioner"] = policy
    if name in ASKS_A_CLIP:
        scorer = settings.get("scorer", "lab")
        if isinstance(scorer, str):
            settings["scorer"] = LabClipScorer(None if scorer == "lab" else scorer)
    return load_reward(name, **settings)
