import math

import pytest
import torch
from tests.benchmarks.stub import rollouts

from thinkdraw.rewards import load_reward
from thinkdraw.types import Prompt

PROMPTS = [Prompt("a ring"), Prompt("a cup")]


class Lengths:
    """A picture's first byte plus the text's length; no verdict for a cup."""

    def score(self, pictures, texts):
        scores = [float(p.flatten()[0]) + len(t) for p, t in zip(pictures, texts, strict=True)]
        return torch.tensor([math.nan if t == "a cup" else s for s, t in zip(scores, texts)])


def test_the_reward_is_the_scorers_number_for_the_picture_and_its_prompts_text():
    pictures = torch.full((2, 64, 64, 3), 3, dtype=torch.uint8)
    values = load_reward("lab-clip", scorer=Lengths())(rollouts(PROMPTS, pictures, ["", ""])).rewards
    assert values[0].item() == 3 + len("a ring") and math.isnan(values[1])


def test_the_reward_needs_pictures_and_a_scorer():
    with pytest.raises(ValueError, match="have no pictures"):
        load_reward("lab-clip", scorer=Lengths())(rollouts(PROMPTS, None, ["", ""]))
    with pytest.raises(TypeError, match=r"str has no \.score"):
        load_reward("lab-clip", scorer="lab")
