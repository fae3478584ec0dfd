"""One token for every row through the language model, as often as a rollout is long: its layers as a loop over matrices.

transformers' modules compute the same. Here what they do again at every token is done once per decoder: weights are cast
to the dtype that they are multiplied in, and the rotary angles are shared by the layers.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration

from thinkdraw.policies.fast.cpu_kernels import Angles, Kernels, is_silu, kernels_for
from thinkdraw.policies.lora import active_adapter
from thinkdraw.policies.sampling.cache import Cache, Shape, turning
from thinkdraw.runtime.device import multiplied_in

Map = Callable[[Tensor], Tensor]
Norm = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]  # of stream and change: their sum, and its norm


class Decoder:
    """Reads the weights when it is made: make one per rollout phase. Under autocast it multiplies in autocast's dtype.

    kernels: what runs between the products on a CPU, None where torch does.
    """

    def __init__(self, model: JanusForConditionalGeneration) -> None:
        language_model: Any = model.model.language_model
        weight = model.lm_head.weight
        self.dtype = multiplied_in(weight.device, weight.dtype)
        first = language_model.layers[0].self_attn
        self.shape = Shape(len(language_model.layers), first.k_proj.out_features // first.head_dim, first.head_dim)
        self.kernels = kernels_for(weight.device, self.dtype, self.shape.width)
        self.rotary, self.norm = language_model.rotary_emb, _norm(language_model.norm, weight.dtype, self.kernels)
        self.layers = [_Layer(layer, self.dtype, self.kernels) for layer in language_model.layers]

    def __call__(self, embeddings: Tensor, positions: Tensor, cache: Cache) -> Tensor:
        """Hidden states (R, S, H) of embeddings (R, S, H) at positions (R, S), for which a pass of the cache is open."""
        with torch.autocast(embeddings.device.type, enabled=False):
            angles = turning(*self.rotary(embeddings, positions))
            rows, stream, change = len(embeddings), embeddings.flatten(0, 1), None
            for index, layer in enumerate(self.layers):
                stream, change = layer(stream, change, rows, angles, cache, index)
            return self.norm(stream, change)[1].unflatten(0, (rows, -1))


class _Layer:
    """A Llama layer: attention and a gated MLP, each behind a norm and added to the residual stream."""

    def __init__(self, layer: Any, dtype: torch.dtype, kernels: Kernels | None) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.dtype, self.width, self.scale = dtype, attention.head_dim, attention.scaling
        self.before = _norm(layer.input_layernorm, dtype, kernels)
        self.between = _norm(layer.post_attention_layernorm, dtype, kernels)
        self.gate = _gate(mlp.act_fn, kernels)
        to_heads = [attention.q_proj, attention.k_proj, attention.v_proj]
        self.num_heads = sum(part.out_features for part in to_heads) // self.width
        self.to_heads = _joined(to_heads, dtype)
        self.to_output = _linear(attention.o_proj, dtype)
        self.to_gate_and_up, self.to_down = _joined([mlp.gate_proj, mlp.up_proj], dtype), _linear(mlp.down_proj, dtype)

    def __call__(
        self, stream: Tensor, change: Tensor | None, rows: int, angles: Angles, cache: Cache, index: int
    ) -> tuple[Tensor, Tensor]:
        """The stream with attention's part added, and the MLP's, both (R · S, H); change is what the layer before leaves
        to add. angles: of R rows."""
        stream, normed = self.before(stream, change)
        heads = self.to_heads(normed).view(rows, -1, self.num_heads, self.width)
        found = cache.attend(index, heads, angles, self.scale)
        stream, normed = self.between(stream, self.to_output(found.reshape(len(stream), -1).to(self.dtype)))
        return stream, self.to_down(self.gate(self.to_gate_and_up(normed)))


def _norm(module: Any, dtype: torch.dtype, kernels: Kernels | None) -> Norm:
    """Llama's norm."""
    weight, eps = module.weight, module.variance_epsilon
    if kernels is not None and weight.dtype in (torch.float32, kernels.dtype):
        return lambda stream, change: kernels.norm(stream, change, weight, eps, dtype)

    def by_torch(stream: Tensor, change: Tensor | None) -> tuple[Tensor, Tensor]:
        stream = stream if change is None else stream + change
        return stream, F.rms_norm(stream, weight.shape, weight, eps).to(dtype)

    return by_torch


def _gate(act: Any, kernels: Kernels | None) -> Map:
    by_kernels = kernels.gate if kernels is not None and is_silu(act) else None

    def gated(both: Tensor) -> Tensor:
        gate, up = both.chunk(2, dim=-1)
        return act(gate) * up if by_kernels is None else by_kernels(gate, up)

    return gated


def _joined(modules: list[Any], dtype: torch.dtype) -> Map:
    """The outputs of several layers of one input side by side; as one matrix where their weights are copied anyway."""
    if all(type(m) is nn.Linear and m.weight.dtype != dtype and m.bias is None for m in modules):
        weight = torch.cat([m.weight.to(dtype) for m in modules])
        return lambda x: F.linear(x, weight)
    parts = [_linear(module, dtype) for module in modules]
    return lambda x: torch.cat([part(x) for part in parts], dim=-1)


def _linear(module: Any, dtype: torch.dtype) -> Map:
    """What the layer computes, its weights cast; an adapter that is on stays a product of its own, as in learning."""
    if type(module) is nn.Linear:
        weight, bias = module.weight.to(dtype), None if module.bias is None else module.bias.to(dtype)
        return lambda x: F.linear(x, weight, bias)
    if (adapter := active_adapter(module)) is not None:
        base, down, up = (_linear(part, dtype) for part in (module.base_layer, adapter.down, adapter.up))
        return lambda x: base(x) + up(down(x)) * adapter.scale
    if hasattr(module, "base_layer"):
        return _linear(module.base_layer, dtype)
    return module  # quantised, for one: it knows its dtype
