"""The language model for prefill and decode steps: Llama's layers with a KV cache.

transformers' modules compute the same. Two things that they repeat at every token are done once here. Weights are
cast to the dtype of matrix products when the decoder is made, and RoPE's angles are computed once per pass for all
layers.
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
    """Runs the language model with the weights it has when the decoder is made.

    Make one for each sampler call. Under autocast it multiplies in autocast's dtype.
    """

    def __init__(self, model: JanusForConditionalGeneration) -> None:
        language_model: Any = model.model.language_model
        weight = model.lm_head.weight
        dtype = matmul_dtype(weight.device, weight.dtype)
        first = language_model.layers[0].self_attn
        self.shape = CacheShape(len(language_model.layers), first.k_proj.out_features // first.head_dim, first.head_dim)
        self.operations = speed.operations(weight.device, dtype, self.shape.width)
        # The heads multiply in the weights' own dtype, so the last norm is not rounded to the dtype of products.
        self.rotary, self.norm = language_model.rotary_emb, self.operations.rms_norm(language_model.norm, weight.dtype)
        self.layers = [_Layer(layer, self.operations) for layer in language_model.layers]

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        """Make an empty KV cache; see `Operations.new_cache`."""
        return self.operations.new_cache(self.shape, rows, capacity)

    def __call__(self, embeddings: Tensor, positions: Tensor, cache: KVCache) -> Tensor:
        """Compute hidden states (R, S, H) of embeddings (R, S, H) at positions (R, S).

        The cache must have begun a pass at these positions.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            rotation = rotary_signs(*self.rotary(embeddings, positions))
            rows, stream, change = len(embeddings), embeddings.flatten(0, 1), None
            for index, layer in enumerate(self.layers):
                stream, change = layer(stream, change, rows, rotation, cache, index)
            return self.norm(stream, change)[1].unflatten(0, (rows, -1))


class _Layer:
    """A Llama layer: attention and a gated MLP.

    Each follows an RMSNorm and is added to the residual stream.
    """

    def __init__(self, layer: Any, operations: Operations) -> None:
        attention, mlp, dtype = layer.self_attn, layer.mlp, operations.dtype
        self.dtype, self.width, self.scale = dtype, attention.head_dim, attention.scaling
        self.attention_norm = operations.rms_norm(layer.input_layernorm, dtype)
        self.mlp_norm = operations.rms_norm(layer.post_attention_layernorm, dtype)
        to_heads = [attention.q_proj, attention.k_proj, attention.v_proj]
        self.num_heads = sum(linear.out_features for linear in to_heads) // self.width
        self.to_heads = _joined(to_heads, dtype)
        self.to_output = _linear(attention.o_proj, dtype)
        self.to_gate_and_up, self.to_down = _joined([mlp.gate_proj, mlp.up_proj], dtype), _linear(mlp.down_proj, dtype)
        self.gate = operations.gate(mlp.act_fn)

    def __call__(
        self, stream: Tensor, change: Tensor | None, rows: int, rotation: Rotation, cache: KVCache, index: int
    ) -> tuple[Tensor, Tensor]:
        """Run the layer on the residual stream (R · S, H).

        Returns the stream with attention added, and the MLP's output, which is still to be added.
        change: the output of the last layer's MLP. The norm adds it, so that memory is read once for sum and norm.
        """
        stream, normed = self.attention_norm(stream, change)
        heads = self.to_heads(normed).view(rows, -1, self.num_heads, self.width)
        attended = cache.attend(index, heads, rotation, self.scale)
        stream, normed = self.mlp_norm(stream, self.to_output(attended.reshape(len(stream), -1).to(self.dtype)))
        return stream, self.to_down(self.gate(self.to_gate_and_up(normed)))


def _joined(modules: list[Any], dtype: torch.dtype) -> Map:
    """Join linear layers of one input to one function, with outputs side by side.

    Where weights have to be cast, and so copied anyway, the copies form one matrix.
    """
    if all(type(m) is nn.Linear and m.weight.dtype != dtype and m.bias is None for m in modules):
        weight = torch.cat([m.weight.to(dtype) for m in modules])
        return lambda x: F.linear(x, weight)
    functions = [_linear(module, dtype) for module in modules]
    return lambda x: torch.cat([function(x) for function in functions], dim=-1)


def _linear(module: Any, dtype: torch.dtype) -> Map:
    """Make the function of a linear layer, with its weights cast.

    An active adapter stays a product of its own, so that rounding equals that of training passes.
    """
    if type(module) is nn.Linear:
        weight, bias = module.weight.to(dtype), None if module.bias is None else module.bias.to(dtype)
        return lambda x: F.linear(x, weight, bias)
    if (adapter := active_adapter(module)) is not None:
        base, down, up = (_linear(linear, dtype) for linear in (module.base_layer, adapter.down, adapter.up))
        return lambda x: base(x) + up(down(x)) * adapter.scale
    if hasattr(module, "base_layer"):
        return _linear(module.base_layer, dtype)
    return module  # another kind of layer, such as a quantised one, casts its input itself
