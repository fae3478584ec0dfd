"""A layer with kernels computes what transformers' does, and its gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.policies.suite import PROMPTS
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from thinkdraw.policies import load_policy
from thinkdraw.policies.fast import cpu_kernels as kernels
from thinkdraw.policies.fast import short_attention as attention
from thinkdraw.policies.fast.learning_layer import Layer, use_kernels
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.types import Sampling

from .test_cpu_kernels import kernels_of

ROWS, LENGTH = 6, 20  # enough for a second thread
WIDTH = 12  # of a head: no whole vector of numbers
PADS = torch.tensor([0, 3, 7, 0, 1, 0])


def llama(key_heads: int = 4, **options: Any) -> LlamaModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8, hidden_size=48, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=key_heads, head_dim=WIDTH, **options,
    )  # fmt: skip
    model = LlamaModel(config)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape)
    model.set_attn_implementation(attention.NAME)
    return model.train()


def states_and_gradients(model: LlamaModel, precision: str, mask: Tensor | None = None) -> dict[str, Tensor]:
    torch.manual_seed(1)
    states = torch.randn(ROWS, LENGTH, 48, dtype=model.dtype).requires_grad_()
    direction = torch.randn(ROWS, LENGTH, 48)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16 autocast"):
        found: Any = model(inputs_embeds=states, attention_mask=mask, use_cache=False).last_hidden_state
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad and not name.startswith("embed")}
    gradients = torch.autograd.grad((found.float() * direction).sum(), [states, *trained.values()])
    return {"states": found.detach(), "of states": gradients[0], **dict(zip(trained, gradients[1:]))}


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], allowed: float) -> None:
    assert found.keys() == wanted.keys()
    for name, one in wanted.items():
        assert found[name].dtype == one.dtype
        off = float((found[name].double() - one.double()).norm() / one.double().norm())
        assert off < allowed, f"{name} off by {off:.1g}"


@pytest.fixture
def uses(monkeypatch) -> Callable[[], set[str]]:
    """Which functions of the compiled source ran."""
    run, seen = kernels.Kernels._run, set()
    monkeypatch.setattr(kernels.Kernels, "_run", lambda self, name, *fields: seen.add(name) or run(self, name, *fields))
    return lambda: seen


@pytest.mark.parametrize("mask", [None, torch.arange(LENGTH) >= PADS[:, None]])
@pytest.mark.parametrize("key_heads", [4, 2])
@pytest.mark.parametrize(("precision", "dtype", "allowed"), [
    ("fp32", torch.float32, 1e-5), ("bf16 autocast", torch.float32, 3e-2), ("bf16", torch.bfloat16, 6e-2),
])  # fmt: skip
def test_states_and_gradients_are_transformers(precision, dtype, allowed, key_heads, mask, uses):
    kernels_of(torch.float32 if precision == "fp32" else torch.bfloat16, WIDTH)
    model = llama(key_heads).to(dtype)
    exact = states_and_gradients(llama(key_heads).double().to(dtype).float(), "fp32", mask)
    wanted = states_and_gradients(model, precision, mask)
    assert not uses()
    use_kernels(model)
    found = states_and_gradients(model, precision, mask)
    norm = "norm_of_number" if precision == "bf16" else "norm_to_number"
    assert uses() == {norm, f"{norm}_backward", "rotate", "rotate_backward", "gate", "gate_backward"}
    assert_close(found, wanted, allowed)
    if precision != "fp32":  # rounding is no worse than transformers'

        def off(one: dict[str, Tensor]) -> float:
            return sum(float((one[n].double() - e.double()).norm() / e.double().norm()) for n, e in exact.items())

        assert off(found) < 1.1 * off(wanted)


def test_positions_may_differ_between_rows():
    kernels_of(torch.float32, WIDTH)
    model, states = llama(), torch.randn(ROWS, LENGTH, 48)
    positions = torch.arange(LENGTH) + PADS[:, None]
    wanted: Any = model(inputs_embeds=states, position_ids=positions).last_hidden_state
    use_kernels(model)
    found: Any = model(inputs_embeds=states, position_ids=positions).last_hidden_state
    assert torch.allclose(found, wanted, atol=1e-5)


def test_frozen_norms_and_frozen_layers_keep_the_gradients_of_the_others(uses):
    kernels_of(torch.float32, WIDTH)
    model = llama()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("q_proj" in name)
    wanted = states_and_gradients(model, "fp32")
    use_kernels(model)
    assert_close(states_and_gradients(model, "fp32"), wanted, 1e-5)
    assert uses()


@pytest.mark.parametrize("case", ["no compiler", "cached", "other activation", "attention dropout"])
def test_where_kernels_cannot_run_transformers_layer_does(case, uses, monkeypatch):
    model = llama(
        hidden_act="gelu" if case == "other activation" else "silu",
        attention_dropout=0.5 if case == "attention dropout" else 0.0,
    )
    if case == "no compiler":
        monkeypatch.setattr(kernels, "_kernels", lambda *_: None)
    states, cached = torch.randn(ROWS, LENGTH, 48), case == "cached"
    found = []
    for change in (lambda _: None, use_kernels):
        change(model)
        torch.manual_seed(2)
        output: Any = model(inputs_embeds=states, use_cache=cached)
        found.append(output.last_hidden_state)
    assert all(type(layer) is Layer for layer in model.layers)
    assert torch.equal(*found) and not uses()


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)])
def test_policies_learn_through_them(lora, uses, tmp_path):
    policy = load_policy(str(random_janus(tmp_path / "policy")), lora=lora)
    kernels_of(torch.float32, policy.model.config.get_text_config().head_dim)
    rollouts = policy.sample(PROMPTS, Sampling(max_thought_tokens=6, guidance_scale=5.0), seed=0)
    uses().clear()
    scored = policy.log_probs(rollouts)
    torch.testing.assert_close(scored.log_probs, rollouts.log_probs, atol=1e-3, rtol=0)
    scored.log_probs.sum().backward()
    assert {"rotate", "gate_backward", "norm_to_number_backward"} <= uses()
