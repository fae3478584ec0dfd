"""Compiled layers learn what plain layers learn, and are refused where they would not."""

import os
import shutil
from typing import Any

import pytest
import torch
from tests.policies.suite import PROMPTS, SEEDS, sampling
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.types import Rollouts


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return str(random_janus(tmp_path_factory.mktemp("compiled") / "policy"))


def compiled(policy: JanusPolicy) -> JanusPolicy:
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        pytest.skip("no C++ compiler here")
    policy.compile_layers()
    return policy


def learned(policy: JanusPolicy, rollouts: Rollouts) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probs, and the gradients of their sum."""
    policy.network.train()
    log_probs = policy.log_probs(rollouts).log_probs
    log_probs.sum().backward()
    policy.network.eval()
    return log_probs.detach(), {n: p.grad for n, p in policy.network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("checkpointing", "lora"),
    [(False, None), (True, None), (False, LoraSettings.model_validate({"rank": 2}))],
    ids=["", "checkpointing", "adapters"],
)
def test_likelihoods_gradients_and_the_reference_are_those_of_plain_layers(checkpoint, checkpointing, lora):
    torch.manual_seed(0)
    plain = load_policy(checkpoint, lora=lora)
    torch.manual_seed(0)
    other = load_policy(checkpoint, lora=lora)
    for policy in (plain, other):
        if checkpointing:
            model: Any = policy.model
            model.gradient_checkpointing_enable({"use_reentrant": False})
    compiled(other)
    for policy in (plain, other):
        policy.make_reference()
    rollouts = plain.sample(PROMPTS, sampling(guidance_scale=3.0), group_size=2, seeds=SEEDS)
    (wanted, gradients), (found, own) = learned(plain, rollouts), learned(other, rollouts)
    assert torch.allclose(found, wanted, atol=1e-4)
    assert gradients.keys() == own.keys()
    for name, gradient in gradients.items():
        assert float((own[name] - gradient).norm()) <= 1e-3 * max(float(gradient.norm()), 1e-3), name
    with torch.no_grad(), plain.reference(), other.reference():
        assert torch.allclose(plain.log_probs(rollouts).log_probs, other.log_probs(rollouts).log_probs, atol=1e-4)
    assert other.revision == plain.revision
    names = {name for name, _ in other.network.named_parameters()}
    assert names == {name for name, _ in plain.network.named_parameters()}  # checkpoints fit both


class _Off(torch.autograd.Function):
    """Right on the way there, wrong on the way back."""

    @staticmethod
    def forward(ctx: Any, states: Tensor) -> Tensor:
        return states.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] * 1.1


def test_wrong_gradients_are_refused(checkpoint, monkeypatch: pytest.MonkeyPatch):
    def compile_wrongly(layer: Any, **_: Any) -> None:
        plain = layer.forward
        layer.forward = lambda states, **kwargs: plain(_Off.apply(states), **kwargs)

    monkeypatch.setattr(LlamaDecoderLayer, "compile", compile_wrongly)
    with pytest.raises(
        UserError, match=r"the states' gradients of the compiled layers are off by .*compile_layers=false"
    ):
        load_policy(checkpoint).compile_layers()


def test_a_compiler_that_fails_is_said_with_the_way_out(checkpoint, monkeypatch: pytest.MonkeyPatch):
    def compile_never(layer: Any, **_: Any) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise RuntimeError("no working compiler\nmore of it")

        layer.forward = fail

    monkeypatch.setattr(LlamaDecoderLayer, "compile", compile_never)
    with pytest.raises(UserError, match=r"torch.compile failed \(no working compiler\).*compile_layers=false"):
        load_policy(checkpoint).compile_layers()


def test_dropout_is_refused(checkpoint):
    policy = load_policy(checkpoint, lora=LoraSettings.model_validate({"rank": 2, "dropout": 0.1}))
    with pytest.raises(UserError, match=r"Set lora.dropout=0, or compile_layers=false"):
        policy.compile_layers()
