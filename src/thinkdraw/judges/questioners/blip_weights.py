"""Renames the weights of BLIP's encoders to transformers' names; infers configs."""

import re

from torch import Tensor
from transformers import BlipTextConfig, BlipVisionConfig

from thinkdraw.judges.loading import count_blocks

_HEAD = 64  # dimensions per attention head of BLIP-large and of BERT; the weights do not show it
_VISION_NAME = re.compile(r"(?:blocks\.(\d+)\.)?(.+?)((?:\.weight|\.bias)?)")
_VISION_PARTS = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def rename_vision(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights from timm's names to those of `BlipVisionModel`.

    The text encoder's names are the same in both. Raises KeyError with the first part that the model does not have.
    """
    renamed = {}
    for name, weight in weights.items():
        block, part, kind = _VISION_NAME.fullmatch(name).groups()  # type: ignore[union-attr]  # matches anything
        renamed[f"encoder.layers.{block}.{_VISION_PARTS[part]}{kind}" if block else _VISION_PARTS[part] + kind] = weight
    return renamed


def infer_vision(weights: dict[str, Tensor]) -> BlipVisionConfig:
    """Read the picture encoder's sizes from its weights."""
    patches, positions = weights["patch_embed.proj.weight"], weights["pos_embed"]
    return BlipVisionConfig(
        hidden_size=len(patches),
        intermediate_size=len(weights["blocks.0.mlp.fc1.weight"]),
        num_hidden_layers=count_blocks(weights, "blocks"),
        num_attention_heads=max(1, len(patches) // _HEAD),
        patch_size=patches.shape[-1],
        image_size=round((positions.shape[1] - 1) ** 0.5) * patches.shape[-1],  # one position is the class token's
        layer_norm_eps=1e-6,
    )


def infer_text(weights: dict[str, Tensor]) -> BlipTextConfig:
    """Read the text encoder's sizes from its weights."""
    words = weights["embeddings.word_embeddings.weight"]
    return BlipTextConfig(
        vocab_size=len(words),
        hidden_size=words.shape[1],
        encoder_hidden_size=weights["encoder.layer.0.crossattention.self.key.weight"].shape[1],
        intermediate_size=len(weights["encoder.layer.0.intermediate.dense.weight"]),
        num_hidden_layers=count_blocks(weights, "encoder.layer"),
        num_attention_heads=max(1, words.shape[1] // _HEAD),
        max_position_embeddings=len(weights["embeddings.position_embeddings.weight"]),
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        sep_token_id=None,
        is_decoder=True,  # builds the cross-attention; the forward pass stays bidirectional
    )
