"""`SelfQuestioner`: the policy's own answers from before it learned, by a copy or with its adapter off."""

import pytest
import torch
from tests.judges.helpers_vlm import pictures

from thinkdraw.errors import UserError
from thinkdraw.judges import load_judge
from thinkdraw.judges.questioners.frozen_policy import SelfQuestioner
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.types import Questioner

QUESTIONS = ["is there a cup?", "a?", "two cups"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return random_janus(tmp_path_factory.mktemp("janus") / "tiny")


def learn(policy):
    """Every weight that is trained moves, as after an update."""
    for weight in policy.model.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn_like(weight)


def shown(policy):
    return pictures(3, size=policy.picture.height)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_a_copy_answers_as_before_while_the_policy_learns(checkpoint, lora):
    policy = load_policy(checkpoint, lora=lora)
    before, revision = policy.answer(shown(policy), QUESTIONS), policy.revision
    judge = SelfQuestioner(policy)
    learn(policy)
    assert torch.allclose(judge.answer(shown(policy), QUESTIONS), before, atol=1e-6)
    assert (policy.answer(shown(policy), QUESTIONS) - before).abs().max() > 1e-3
    assert judge.revision == revision and isinstance(judge, Questioner)


def test_with_the_adapter_off_it_answers_as_before_and_leaves_the_adapter_on(checkpoint):
    policy = load_policy(checkpoint, lora=LoraSettings(rank=2))
    before = policy.answer(shown(policy), QUESTIONS)
    judge = load_judge("self", policy=policy, frozen="adapter-off", max_pairs=2)
    revision = judge.revision
    learn(policy)
    learned = policy.answer(shown(policy), QUESTIONS)
    p = judge.answer(shown(policy), QUESTIONS)
    assert torch.allclose(p, before, atol=1e-6) and not p.requires_grad
    assert (learned - before).abs().max() > 1e-3
    assert torch.equal(policy.answer(shown(policy), QUESTIONS), learned)
    assert SelfQuestioner(policy, "adapter-off").revision == revision  # of the weights under the adapter


def test_a_policy_without_adapter_cannot_judge_itself_with_it_off(checkpoint):
    policy = load_policy(checkpoint)
    with pytest.raises(UserError, match="has no adapter"):
        SelfQuestioner(policy, "adapter-off")
    with pytest.raises(UserError, match="frozen=yes: unknown"):
        SelfQuestioner(policy, "yes")  # type: ignore[arg-type]
