"""Best-of-N keeps what the reward likes best, and its first candidate is the policy's own picture."""

import math

import pytest
import torch

from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.search import BestOfN
from thinkdraw.types import Prompt, Sampling

PROMPTS = [Prompt(f"a photo of {n} cups", str(n)) for n in range(5)]
SEEDS = [11, 22, 33, 44, 55]


class Sum:
    """Mean code of the picture; for some prompts no verdict."""

    name = "sum"

    def __init__(self, silent: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.silent, self.calls = silent, 0

    def __call__(self, rollouts):
        self.calls += 1
        found = rollouts.image_tokens().float().mean(1)
        quiet = torch.tensor([p.id in self.silent for p in rollouts.prompts])
        return found.masked_fill(quiet, math.nan)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return load_policy(str(random_janus(tmp_path_factory.mktemp("best") / "policy")))


@pytest.mark.parametrize(("thought", "top_k"), [("inline", None), ("rewrite", 5), ("off", None)])
def test_each_row_is_the_best_of_its_candidates(policy, thought, top_k):
    sampling, reward = Sampling(thought=thought, max_thought_tokens=6, top_k=top_k), Sum()
    candidates = [policy.sample(PROMPTS, sampling, seeds=[s + i for s in SEEDS]) for i in range(3)]
    found = BestOfN(policy, reward, 3).sample(PROMPTS, sampling, seeds=SEEDS)
    rewards = torch.stack([reward(c) for c in candidates])
    assert torch.equal(reward(found), rewards.amax(0))
    for b, i in enumerate(rewards.argmax(0).tolist()):
        one = candidates[i]
        assert torch.equal(found.pictures[b], one.pictures[b]) and int(found.seeds[b]) == SEEDS[b] + i
        assert found.thoughts[b] == one.thoughts[b]
    again = policy.log_probs(found).log_probs.detach()
    assert float((again - found.log_probs)[found.mask].abs().max()) < 1e-4


def test_one_candidate_is_the_policy_itself(policy):
    alone = policy.sample(PROMPTS, Sampling(max_thought_tokens=6), seeds=SEEDS)
    best = BestOfN(policy, Sum(), 1).sample(PROMPTS, Sampling(max_thought_tokens=6), seeds=SEEDS)
    assert torch.equal(best.tokens, alone.tokens) and torch.equal(best.pictures, alone.pictures)


def test_without_a_verdict_the_first_is_kept(policy):
    alone = policy.sample(PROMPTS, Sampling(thought="off"), seeds=SEEDS)
    best = BestOfN(policy, Sum({"2"}), 4).sample(PROMPTS, Sampling(thought="off"), seeds=SEEDS)
    assert torch.equal(best.pictures[2], alone.pictures[2])


def test_none_is_too_few(policy):
    with pytest.raises(ValueError, match="n=0"):
        BestOfN(policy, Sum(), 0)
