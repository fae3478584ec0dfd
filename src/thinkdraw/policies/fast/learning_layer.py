"""A Llama layer for learning on a CPU, with C++ kernels.

transformers' layer computes it in some twenty passes over memory between its matrix products, and autocast casts
once for every product. It stays in charge wherever the kernels cannot run: on GPUs, without a compiler, under
torch.compile, and with a KV cache.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from thinkdraw.policies.fast.cpu_kernels import Kernels, is_silu, kernels_for
from thinkdraw.policies.fast.short_attention import attend
from thinkdraw.policies.sampling.cache import rotary_signs
from thinkdraw.runtime.device import matmul_dtype


class Layer(LlamaDecoderLayer):
    """The layer of transformers: its weights, its modules, its results up to rounding."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        """Map (B, S, H) to (B, S, H).

        kwargs: those of transformers, with position_embeddings.
        """
        kernels = self._kernels(hidden_states)
        if kernels is None or kwargs.get("past_key_values") is not None:
            return super().forward(hidden_states, attention_mask, **kwargs)
        attention, mlp = self.self_attn, self.mlp
        angles = rotary_signs(*kwargs.pop("position_embeddings"))
        shape = (*hidden_states.shape[:2], -1, attention.head_dim)

        stream = hidden_states.flatten(0, 1)
        (normed,) = _Norm.apply(
            kernels, self.input_layernorm.variance_epsilon, stream, None, self.input_layernorm.weight
        )
        query, key = (
            _Rotate.apply(kernels, linear(normed).view(shape), *angles)
            for linear in (attention.q_proj, attention.k_proj)
        )
        value = attention.v_proj(normed).view(shape).transpose(1, 2)
        attended, _ = attend(attention, query, key, value, attention_mask, scaling=attention.scaling, **kwargs)
        change = attention.o_proj(attended.reshape(len(stream), -1))
        norm = self.post_attention_layernorm
        stream, normed = _Norm.apply(kernels, norm.variance_epsilon, stream, change, norm.weight)
        change = mlp.down_proj(_Gate.apply(kernels, mlp.gate_proj(normed), mlp.up_proj(normed)))
        # The sum comes after the views, because FSDP does not accept a view as a layer's output.
        return stream.view(hidden_states.shape) + change.view(hidden_states.shape)

    def _kernels(self, states: Tensor) -> Kernels | None:
        """Return the kernels for these states, or None where they cannot run."""
        weight, attention = self.input_layernorm.weight, self.self_attn
        dtype = matmul_dtype(states.device, weight.dtype)
        if torch.compiler.is_compiling() or (self.training and attention.attention_dropout):
            return None
        if states.dtype != weight.dtype or weight.dtype not in (torch.float32, dtype):
            return None
        if not is_silu(self.mlp.act_fn):
            return None
        return kernels_for(states.device, dtype, attention.head_dim)


def use_kernels(model: nn.Module) -> None:
    """Let the Llama layers of a model use kernels where they can.

    Modules and their names stay.
    """
    for module in model.modules():
        if type(module) is LlamaDecoderLayer:
            module.__class__ = Layer


class _Norm(Function):
    """Autograd function of `Kernels.norm`; without a change it gives no sum."""

    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, eps: float, stream: Tensor, change: Tensor | None, weight: Tensor
    ) -> tuple[Tensor, ...]:
        """Run the kernel."""
        total, normed = kernels.norm(stream, change, weight, eps, kernels.dtype)
        ctx.kernels, ctx.eps, ctx.changed = kernels, eps, change is not None
        ctx.save_for_backward(total, weight)
        return (total, normed) if ctx.changed else (normed,)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Run the kernel's gradient."""
        (total, weight), grad_total = ctx.saved_tensors, gradients[0] if ctx.changed else None
        results = ctx.kernels.norm_backward(total, weight, ctx.eps, grad_total, gradients[-1], ctx.changed)
        return None, None, *results


class _Rotate(Function):
    """Autograd function of `Kernels.rotate`."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Run the kernel."""
        ctx.kernels = kernels
        ctx.save_for_backward(cos, sin)
        return kernels.rotate(heads, (cos, sin))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Run the kernel's gradient; angles have none."""
        return None, ctx.kernels.rotate_backward(gradient, ctx.saved_tensors), None, None


class _Gate(Function):
    """Autograd function of `Kernels.gate`."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, gate: Tensor, up: Tensor) -> Tensor:
        """Run the kernel."""
        ctx.kernels = kernels
        ctx.save_for_backward(gate, up)
        return kernels.gate(gate, up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Run the kernel's gradient."""
        return None, *ctx.kernels.gate_backward(*ctx.saved_tensors, gradient)
