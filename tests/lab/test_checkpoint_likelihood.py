"""The likelihood claims of tests/policies, which run on a random checkpoint, held on the shipped one too."""

import pytest
from tests.policies import test_against_transformers, test_likelihood
from tests.policies.fast import test_cpu_kernels as test_kernels
from transformers import JanusForConditionalGeneration

from thinkdraw.lab import checkpoint_path
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.policy import JanusPolicy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (checkpoint_path() / "config.json").exists(), reason="the lab checkpoint is not in this tree"
    ),
]
THOUGHTS = ["inline", "rewrite", "off"]


@pytest.fixture(scope="module")
def policy() -> JanusPolicy:
    return load_policy(checkpoint_path())


@pytest.fixture(scope="module")
def plain():
    import torch

    return JanusForConditionalGeneration.from_pretrained(checkpoint_path(), dtype=torch.float32).eval()


@pytest.mark.parametrize("cut", test_likelihood.CUTS)
@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 3.0, 5.0])
@pytest.mark.parametrize("thought", THOUGHTS)
def test_recomputed_log_probs_equal_the_samplers(policy, thought, guidance_scale, temperature, cut):
    test_likelihood.test_recomputed_log_probs_equal_the_samplers(policy, thought, guidance_scale, temperature, cut)


@pytest.mark.parametrize("thought", THOUGHTS)
def test_rollouts_and_scores_do_not_depend_on_their_batch(policy, thought):
    test_likelihood.test_a_rollout_does_not_depend_on_its_batch(load_policy(checkpoint_path()), thought)
    test_likelihood.test_scores_do_not_depend_on_padding_order_or_micro_batch(policy, thought, "top_p")


def test_greedy_thoughts_and_pictures_equal_those_of_transformers_generate(policy, plain):
    test_against_transformers.test_greedy_thoughts_and_the_pictures_after_them(policy, plain)
    test_against_transformers.test_greedy_pictures_of_rewritten_prompts(policy, plain)
    off = test_against_transformers.test_greedy_pictures_without_thought
    off(policy, plain)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("thought", THOUGHTS)
def test_rollouts_are_the_same_without_a_compiler(thought, greedy, monkeypatch):
    test_kernels.test_rollouts_are_the_same_without_a_compiler(checkpoint_path(), thought, greedy, monkeypatch)
