"""The language model for prefill and decode steps: Llama's layers as a loop over matrices, with a KV cache.

transformers' modules compute the same. What they do again at every token is done once here: weights are cast when the
decoder is made, to the dtype that they are multiplied in, and RoPE's angles are computed once per pass for all layers.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration

from thinkdraw.policies import speed
from thinkdraw.policies.lora import active_adapter
from thinkdraw.policies.sampling.cache import CacheShape, KVCache, Rotation, rotary_signs
from thinkdraw.policies.sampling.operations import Map, Operations
from thinkdraw.runtime.device import matmul_dtype


class Decoder:
    """Runs the language model with the weights as they are when it is made: make one for each sampler call.

    Under autocast it multiplies in autocast's dtype.
    """

    def __init__(self, model: JanusForConditionalGeneration) -> None:
        language_model: Any = model.model.language_model
        weight = model.lm_head.weight
        dtype = matmul_dtype(weight.device, weight.dtype)
        first = language_model.layers[0].self_attn
        self.shape = CacheShape(len(language_model.layers), first.k_proj.out_features // first.head_dim, first.head_dim)
        self.operations = speed.operations(weight.device, dtype, self.shape.width)
        # The heads multiply in the weights' own dtype: the last norm is not rounded to the products' dtype.
        self.rotary, self.norm = language_model.rotary_emb, self.operations.rms_norm(language_model.norm, weight.dtype)
        self.layers = [_Layer(layer, self.operations) for layer in language_model.layers]

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """See `Operations.new_cache`."""
        return self.operations.new_cache(self.shape, rows, capacity)

    def __call__(self, embeddings: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
        """Hidden states (R, S, H) of embeddings (R, S, H) at positions (R, S), for which the cache has begun a pass."""
        with torch.autocast(embeddings.device.type, enabled=False):
            rotation = rotary_signs(*self.rotary(embeddings, positions))
            rows, stream, change = len(embeddings), embeddings.flatten(0, 1), None
            for index, layer in enumerate(self.layers):
                stream, change = layer(stream, change, rows, rotation, cache, index)
            return self.norm(stream, change)[1].unflatten(0, (rows, -1))


class _Layer:
    """A Llama layer: attention and a gated MLP, each behind an RMSNorm and added to the residual stream."""

    def __init__(self, layer: Any, operations: Operations) -> None:
        attention, mlp, dtype = layer.self_attn, layer.mlp, operations.dtype
        self.dtype, self.width, self.scale = dtype, attention.head_dim, attention.scaling
        self.attention_norm = operations.rms_norm(layer.input_layernorm, dtype)
        self.mlp_norm = operations.rms_norm(layer.post_attention_layernorm, dtype)
        to_heads = [attention.q_proj, attention.k_proj, attention.v_proj]
        self.num_heads = sum(part.out_features for part in to_heads) // self.width
        self.to_heads = _joined(to_heads, dtype)
        self.to_output = _linear(attention.o_proj, dtype)
        self.to_gate_and_up, self.to_down = _joined([mlp.gate_proj, mlp.up_proj], dtype), _linear(mlp.down_proj, dtype)
        self.gate = operations.gate(mlp.act_fn)

    def __call__(
        self, stream: Tensor, change: Tensor | None, rows: int, rotation: Rotation, cache: KVCache, index: int
    ) -> tuple[Tensor, Tensor]:
        """(residual stream with attention added, output of the MLP that is still to be added), both (R · S, H).

        change: the output of the last layer's MLP. The norm that follows adds it, so that memory is read once for both.
        """
        stream, normed = self.attention_norm(stream, change)
        heads = self.to_heads(normed).view(rows, -1, self.num_heads, self.width)
        attended = cache.attend(index, heads, rotation, self.scale)
        stream, normed = self.mlp_norm(stream, self.to_output(attended.reshape(len(stream), -1).to(self.dtype)))
        return stream, self.to_down(self.gate(self.to_gate_and_up(normed)))


def _joined(modules: list[Any], dtype: torch.dtype) -> Map:
    """Several linear layers of one input, outputs side by side; one matrix where weights are cast, and so copied, anyway."""
    if all(type(m) is nn.Linear and m.weight.dtype != dtype and m.bias is None for m in modules):
        weight = torch.cat([m.weight.to(dtype) for m in modules])
        return lambda x: F.linear(x, weight)
    parts = [_linear(module, dtype) for module in modules]
    return lambda x: torch.cat([part(x) for part in parts], dim=-1)


def _linear(module: Any, dtype: torch.dtype) -> Map:
    """A linear layer with its weights cast; an adapter that is on stays a product of its own, as in training passes."""
    if type(module) is nn.Linear:
        weight, bias = module.weight.to(dtype), None if module.bias is None else module.bias.to(dtype)
        return lambda x: F.linear(x, weight, bias)
    if (adapter := active_adapter(module)) is not None:
        base, down, up = (_linear(part, dtype) for part in (module.base_layer, adapter.down, adapter.up))
        return lambda x: base(x) + up(down(x)) * adapter.scale
    if hasattr(module, "base_layer"):
        return _linear(module.base_layer, dtype)
    return module  # a layer of another kind, such as a quantised one, which casts its input itself
