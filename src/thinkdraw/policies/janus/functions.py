"""Janus as functions: embeddings, the language model, and its two heads.

Sampling and `Likelihood` share them, so that both compute the same.
"""

import torch
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration


def embed(model: JanusForConditionalGeneration, ids: Tensor, is_image: Tensor) -> Tensor:
    """Embed text ids and, where is_image (B, S), codes: (B, S, H)."""
    embeddings = model.get_input_embeddings()(ids.masked_fill(is_image, 0))
    # This runs even without any image position: the aligner then has a zero gradient instead of none, for which DDP
    # would wait.
    codes = model.prepare_embeddings_for_image_generation(ids[is_image]).to(embeddings.dtype)
    # Not in place: adapters with activation checkpointing make these embeddings a leaf that requires a gradient.
    return embeddings.index_put((is_image,), codes)


def embed_codes(model: JanusForConditionalGeneration, codes: Tensor) -> Tensor:
    """Embed image tokens (...) as inputs of the language model (..., H)."""
    # Under autocast the aligner returns bf16, while the residual stream is in the weights' dtype.
    dtype = model.model.language_model.embed_tokens.weight.dtype
    return model.prepare_embeddings_for_image_generation(codes).to(dtype)


def hidden_states(model: JanusForConditionalGeneration, embeddings: Tensor) -> Tensor:
    """Run a causal forward pass without KV cache: last hidden states (B, S, H)."""
    return model.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state


def logits_of(head: nn.Linear, inputs: Tensor) -> Tensor:
    """Compute a linear head's logits (..., V) float32 of its inputs (..., H).

    The head runs outside of autocast: bf16 logits are off by up to 0.4 %, and guidance multiplies that error.
    """
    with torch.autocast(inputs.device.type, enabled=False):
        return head(inputs.to(head.weight.dtype)).float()


def text_logits(model: JanusForConditionalGeneration, hidden: Tensor) -> Tensor:
    """Compute text logits (..., V) float32 of hidden states (..., H)."""
    return logits_of(model.lm_head, hidden)


def image_features(model: JanusForConditionalGeneration, hidden: Tensor) -> Tensor:
    """Compute the inputs (K, H) of the image head's last layer."""
    head = model.model.generation_head
    with torch.autocast(hidden.device.type, enabled=False):
        return head.activation_fn(head.proj_out(hidden.to(head.proj_out.weight.dtype)))


def feature_logits(model: JanusForConditionalGeneration, features: Tensor) -> Tensor:
    """Compute image logits (K, codes) float32 of `image_features` (K, H)."""
    return logits_of(model.model.generation_head.vision_head, features)
