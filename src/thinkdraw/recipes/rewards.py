"""Opening a reward by name, with the frozen questioner that learned judges ask."""

from typing import Any

from thinkdraw.recipes.training import load_trained
from thinkdraw.rewards import load_reward
from thinkdraw.types import Reward

ASKS_A_POLICY = {"lab-judge"}


def open_reward(name: str, **settings: Any) -> Reward:
    """`load_reward`, where a questioner may be named: `questioner: lab` (the default) or any checkpoint, loaded frozen."""
    if name in ASKS_A_POLICY:
        questioner = settings.get("questioner", "lab")
        if isinstance(questioner, str):
            policy = load_trained(questioner)
            policy.model.requires_grad_(False)
            settings["questioner"] = policy
    return load_reward(name, **settings)
