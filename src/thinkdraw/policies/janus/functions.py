"""Janus as functions: embeddings, the language model, and its two heads.

Sampling and `Likelihood` share them, so that both compute the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import JanusForConditionalGeneration

from thinkdraw.policies.heads import fp32_linear, in_fp32


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


@dataclass(frozen=True)
class Heads:
    """The two heads of a Janus: a linear one for text, an MLP for image tokens.

    Both multiply in fp32, see `policies.heads`. The sampler guides `image_features`, and so does the scorer.
    """

    text: nn.Linear
    projection: nn.Linear
    activation: Callable[[Tensor], Tensor]
    image: nn.Linear

    @staticmethod
    def of(model: JanusForConditionalGeneration) -> "Heads":
        """Take a model's heads, with their own weights."""
        head = model.model.generation_head
        return Heads(model.lm_head, head.proj_out, head.activation_fn, head.vision_head)

    def in_fp32(self) -> "Heads":
        """Cast the weights once, for many calls without a gradient."""
        return Heads(in_fp32(self.text), in_fp32(self.projection), self.activation, in_fp32(self.image))

    def text_logits(self, hidden: Tensor) -> Tensor:
        """Compute text logits (..., V) float32 of hidden states (..., H)."""
        return fp32_linear(hidden, self.text.weight, self.text.bias)

    def image_features(self, hidden: Tensor) -> Tensor:
        """Compute the inputs (K, H) float32 of the image head's last layer."""
        return self.activation(fp32_linear(hidden, self.projection.weight, self.projection.bias))

    def image_logits(self, features: Tensor) -> Tensor:
        """Compute image logits (K, codes) float32 of `image_features` (K, H)."""
        return fp32_linear(features, self.image.weight, self.image.bias)
