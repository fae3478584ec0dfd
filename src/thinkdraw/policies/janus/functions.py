"""Janus as functions: embed tokens, run the language model, and its two heads; sampling and `Likelihood` share them."""

import torch
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration


def embed(model: JanusForConditionalGeneration, ids: Tensor, is_image: Tensor) -> Tensor:
    """Input embeddings (B, S, H) of text ids and, where is_image (B, S), of codes."""
    embeddings = model.get_input_embeddings()(ids.masked_fill(is_image, 0))
    # Also when no position is an image: then the aligner has a zero gradient instead of none, and DDP need not wait.
    codes = model.prepare_embeddings_for_image_generation(ids[is_image]).to(embeddings.dtype)
    # Not in place: adapters with checkpointing make these embeddings a leaf that requires a gradient.
    return embeddings.index_put((is_image,), codes)


def embed_codes(model: JanusForConditionalGeneration, codes: Tensor) -> Tensor:
    """Input embeddings (..., H) of image tokens (...)."""
    # Under autocast the aligner gives bf16, while the residual stream is in the weights' dtype.
    dtype = model.model.language_model.embed_tokens.weight.dtype
    return model.prepare_embeddings_for_image_generation(codes).to(dtype)


def hidden_states(model: JanusForConditionalGeneration, embeddings: Tensor) -> Tensor:
    """Last hidden states (B, S, H) of a forward pass without KV cache, causal."""
    return model.model.language_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state


def logits_of(head: nn.Linear, inputs: Tensor) -> Tensor:
    """Logits (..., V) float32 of a linear head's inputs (..., H).

    Outside of autocast: bf16 logits are off by up to 0.4 %, and guidance multiplies that.
    """
    with torch.autocast(inputs.device.type, enabled=False):
        return head(inputs.to(head.weight.dtype)).float()


def text_logits(model: JanusForConditionalGeneration, hidden: Tensor) -> Tensor:
    """Text logits (..., V) float32 of hidden states (..., H)."""
    return logits_of(model.lm_head, hidden)


def image_features(model: JanusForConditionalGeneration, hidden: Tensor) -> Tensor:
    """(K, H), the input of the image head's last layer `vision_head`, of hidden states (K, H)."""
    head = model.model.generation_head
    with torch.autocast(hidden.device.type, enabled=False):
        return head.activation_fn(head.proj_out(hidden.to(head.proj_out.weight.dtype)))


def feature_logits(model: JanusForConditionalGeneration, features: Tensor) -> Tensor:
    """Image logits (K, codes) float32 of `image_features` (K, H)."""
    return logits_of(model.model.generation_head.vision_head, features)
