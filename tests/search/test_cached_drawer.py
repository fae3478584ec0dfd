"""Drawn once and chosen from twice is the same as drawn twice."""

import pytest
import torch

from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.search import BestOfN, CachedDrawer
from thinkdraw.types import Prompt, Sampling

PROMPTS = [Prompt(f"a photo of {n} cups", str(n)) for n in range(3)]
SAMPLING = Sampling(max_thought_tokens=4)


class Mean:
    name = "mean"

    def __init__(self, sign: int) -> None:
        self.sign = sign

    def __call__(self, rollouts):
        return self.sign * rollouts.image_tokens().float().mean(1)


class Counting:
    """A policy that counts what it draws."""

    def __init__(self, policy) -> None:
        self.policy, self.revision, self.drawn = policy, policy.revision, 0

    def sample(self, prompts, sampling, *, seeds):
        self.drawn += len(prompts)
        return self.policy.sample(prompts, sampling, seeds=seeds)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return load_policy(str(random_janus(tmp_path_factory.mktemp("once") / "policy")))


def test_two_rewards_choose_from_one_drawing(policy):
    counting = Counting(policy)
    once = CachedDrawer(counting)
    for sign in (1, -1):
        found = BestOfN(once, Mean(sign), 2).sample(PROMPTS, SAMPLING, seeds=[1, 5, 9])
        alone = BestOfN(policy, Mean(sign), 2).sample(PROMPTS, SAMPLING, seeds=[1, 5, 9])
        assert torch.equal(found.pictures, alone.pictures) and torch.equal(found.tokens, alone.tokens)
    assert counting.drawn == 2 * 3  # two candidates of three prompts, not four


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [1, 5, 10]},
        {"prompts": [Prompt("a photo of nine cups", "9"), *PROMPTS[1:]]},
        {"sampling": Sampling(max_thought_tokens=4, temperature=0.5)},
    ],
)
def test_another_question_is_drawn_again(policy, change):
    counting = Counting(policy)
    once = CachedDrawer(counting)
    asked = {"prompts": PROMPTS, "sampling": SAMPLING, "seeds": [1, 5, 9]}
    for question in (asked, asked | change):
        once.sample(question["prompts"], question["sampling"], seeds=question["seeds"])
    assert counting.drawn == 6
