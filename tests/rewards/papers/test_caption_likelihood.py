import math

import pytest
import torch
from tests.benchmarks.stub import rollouts

from thinkdraw.rewards import load_reward
from thinkdraw.types import Prompt


class Reads:
    """Minus one nat per letter, no verdict on cats."""

    def log_likelihood(self, pictures, texts):
        return torch.tensor([math.nan if "cat" in text else -float(len(text)) for text in texts], dtype=torch.float64)


def test_the_reward_is_the_captioners_log_likelihood_of_the_prompts_text():
    rows = rollouts([Prompt("a dog"), Prompt("a cat")], torch.zeros(2, 8, 8, 3, dtype=torch.uint8), ["", ""])
    values = load_reward("caption-likelihood", captioner=Reads())(rows).rewards
    assert values.dtype == torch.float32
    assert values.tolist() == pytest.approx([-5, math.nan], nan_ok=True)
    with pytest.raises(TypeError, match="int is no Captioner"):
        load_reward("caption-likelihood", captioner=3)
