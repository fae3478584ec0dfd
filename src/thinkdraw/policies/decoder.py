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

from thinkdraw.policies.cache import Shape, SlotCache
from thinkdraw.policies.cached_attention import Angles, turning
from thinkdraw.policies.lora import active_adapter
from thinkdraw.runtime.device import multiplied_in

Map = Callable[[Tensor], Tensor]


class Decoder:
    """Reads the weights when it is made: make one per rollout phase. Under autocast it multiplies in autocast's dtype."""

    def __init__(self, model: JanusForConditionalGeneration) -> None:
        language_model: Any = model.model.language_model
        weight = model.lm_head.weight
        self.dtype = multiplied_in(weight.device, weight.dtype)
        self.rotary, self.norm = language_model.rotary_emb, _norm(language_model.norm)
        self.layers = [_Layer(layer, self.dtype) for layer in language_model.layers]
        self.shape = Shape(len(self.layers), self.layers[0].num_keys, self.layers[0].width)

    def __call__(self, embeddings: Tensor, positions: Tensor, cache: SlotCache) -> Tensor:
        """Hidden states (R, S, H) of embeddings (R, S, H) at positions (R, S), whose columns are open in the cache."""
        with torch.autocast(embeddings.device.type, enabled=False):
            angles = turning(*self.rotary(embeddings, positions))
            rows, stream = len(embeddings), embeddings.flatten(0, 1)
            for index, layer in enumerate(self.layers):
                stream = layer(stream, rows, angles, cache, index)
            return self.norm(stream).unflatten(0, (rows, -1))


class _Layer:
    """A Llama layer: attention and a gated MLP, each behind a norm and added to the residual stream."""

    def __init__(self, layer: Any, dtype: torch.dtype) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.dtype, self.width, self.scale = dtype, attention.head_dim, attention.scaling
        self.before, self.between = _norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)
        self.act = mlp.act_fn
        num_queries, self.num_keys = (p.out_features // self.width for p in (attention.q_proj, attention.k_proj))
        self.num_heads = num_queries + 2 * self.num_keys
        self.to_heads = _joined([attention.q_proj, attention.k_proj, attention.v_proj], dtype)
        self.to_output = _linear(attention.o_proj, dtype)
        self.to_gate_and_up, self.to_down = _joined([mlp.gate_proj, mlp.up_proj], dtype), _linear(mlp.down_proj, dtype)

    def __call__(self, stream: Tensor, rows: int, angles: Angles, cache: SlotCache, index: int) -> Tensor:
        """stream: (R · S, H). angles: of R rows."""
        heads = self.to_heads(self.before(stream).to(self.dtype)).view(rows, -1, self.num_heads, self.width)
        found = cache.attend(index, heads, angles, self.scale)
        stream = stream + self.to_output(found.reshape(len(stream), -1).to(self.dtype))
        gate, up = self.to_gate_and_up(self.between(stream).to(self.dtype)).chunk(2, dim=-1)
        return stream + self.to_down(self.act(gate) * up)


def _norm(module: Any) -> Map:
    """Llama's norm as one call."""
    weight, eps = module.weight, module.variance_epsilon
    return lambda x: F.rms_norm(x, weight.shape, weight, eps)


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
