"""The sizes of a Janus, published or of a checkpoint's config.json.

Weights are only counted.
"""

import json
from functools import cache
from typing import Any

import torch
from transformers import (
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)

from thinkdraw.policies import speed
from thinkdraw.policies.janus import loading
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.sampling import memory
from thinkdraw.policies.shape import Weights

# Language models of Janus-Pro: table 1 of arXiv 2501.17811; the width of their MLPs: config.json of the checkpoints.
JANUS_PRO: dict[str, dict[str, Any]] = {
    "janus-pro-1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16},
    "janus-pro-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30, "num_attention_heads": 32},
}  # fmt: skip


class JanusShape:
    """The Janus family's `Shape`."""

    def __init__(self, config: JanusConfig) -> None:
        self.config: Any = config
        text = self.config.text_config
        self.layers, self.hidden = text.num_hidden_layers, text.hidden_size
        self.mlp, self.heads = text.intermediate_size, text.num_attention_heads
        self.vocabulary, self.codes = text.vocab_size, self.config.vq_config.num_embeddings
        self.image_tokens = self.config.vision_config.num_image_tokens
        self.chunk_logits = speed.max_logits()

    @staticmethod
    def published() -> tuple[str, ...]:
        """List the published models."""
        return tuple(JANUS_PRO)

    @classmethod
    def of_published(cls, name: str) -> "JanusShape":
        """Make the shape of a published model."""
        return cls(janus_pro_config(name))

    @classmethod
    def of_checkpoint(cls, path: str) -> "JanusShape":
        """Make the shape of a checkpoint."""
        return cls(loading.read_config(path))

    def weights(self, lora: LoraSettings | None) -> Weights:
        """Count the parameters."""
        frozen: Any = lora  # hashable, which pyright does not see
        return _count(json.dumps(self.config.to_dict(), default=str), frozen)

    def kv_bytes(self, columns: int, itemsize: int) -> int:
        """Return the size of keys and values of one row with `columns` tokens."""
        return memory.kv_bytes(self.config, columns, itemsize)

    def row_bytes(self, columns: int, itemsize: int) -> int:
        """Return the memory that one row needs while it is sampled."""
        return memory.row_bytes(self.config, columns, itemsize)

    def picture_bytes(self, itemsize: int) -> int:
        """Return the memory that one picture needs while it is decoded."""
        return memory.picture_bytes(self.config, itemsize)


def janus_pro_config(name: str, num_layers: int | None = None) -> JanusConfig:
    """Make the config of a published model.

    num_layers: of the language model, in place of the published number.
    """
    language: dict[str, Any] = JANUS_PRO[name] | ({"num_hidden_layers": num_layers} if num_layers else {})
    width, heads = language["hidden_size"], language["num_attention_heads"]
    text = LlamaConfig(
        **language, num_key_value_heads=heads, vocab_size=102_400, max_position_embeddings=16_384,
        tie_word_embeddings=False,
    )  # fmt: skip
    vision = JanusVisionConfig(projection_dim=width, num_image_tokens=576, image_size=384, patch_size=16)
    vq = JanusVQVAEConfig(num_embeddings=16_384, num_patches=24, projection_dim=width, image_token_embed_dim=width)
    return JanusConfig(text_config=text, vision_config=vision, vq_config=vq, tie_word_embeddings=False)


@cache
def _count(config: str, lora: LoraSettings | None) -> Weights:
    """Count the parameters of a config, given as JSON so that it can be cached."""
    with torch.device("meta"):  # weights on this device take no memory
        model: Any = JanusForConditionalGeneration(JanusConfig(**json.loads(config)))

    def size(*modules: Any) -> int:
        return sum(p.numel() for module in modules for p in module.parameters())

    inner, adapters = model.model, 0
    if lora:
        named = ((name.rpartition(".")[2], module) for name, module in inner.language_model.named_modules())
        adapters = sum(lora.rank * (m.in_features + m.out_features) for name, m in named if name in lora.targets)
    drawing = size(model) - size(inner.vqmodel, inner.vision_model, inner.aligner)
    heads = size(model.lm_head), size(inner.generation_head)
    return Weights(size(model) + adapters, drawing, size(inner.language_model.layers), *heads, adapters)
