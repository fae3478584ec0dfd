"""Renames OpenAI's CLIP weights to transformers' names and infers the config."""

import re
from typing import Any

from torch import Tensor
from transformers import CLIPConfig

from thinkdraw.judges.loading import count_blocks

# OpenAI's and open_clip's name → transformers', outside the blocks. Projections are stored transposed.
_NAMES = {
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
}
_PROJECTIONS = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(\d+)\.(\w+(?:\.\w+)?)[._](weight|bias)")
_IN_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def rename(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights from OpenAI's names to those of `CLIPModel`.

    Raises KeyError with the first name that no CLIP has.
    """
    renamed = {}
    for name, weight in weights.items():
        block = _BLOCK.fullmatch(name)
        if name in _PROJECTIONS:
            renamed[_PROJECTIONS[name]] = weight.T.contiguous()
        elif block is None:
            renamed[_NAMES[name]] = weight
        else:
            tower, index, part, kind = block.groups()
            prefix = f"{'vision' if tower else 'text'}_model.encoder.layers.{index}"
            if part == "attn.in_proj":  # queries, keys and values are stacked in one matrix
                parts = zip("qkv", weight.chunk(3), strict=True)
                renamed |= {f"{prefix}.self_attn.{letter}_proj.{kind}": third for letter, third in parts}
            else:
                renamed[f"{prefix}.{_IN_BLOCK[part]}.{kind}"] = weight
    return renamed


def infer_config(weights: dict[str, Tensor], vision_head: int, text_head: int, hidden_act: str) -> CLIPConfig:
    """Read a CLIP's sizes from weights in OpenAI's names.

    vision_head, text_head, hidden_act: dimensions per attention head and the activation, which weights do not show.
    Raises KeyError with the first name that is absent.
    """

    def tower(prefix: str, width: int, head: int) -> dict[str, Any]:
        blocks = f"{prefix}transformer.resblocks"
        return {
            "hidden_size": width,
            "intermediate_size": weights[f"{blocks}.0.mlp.c_fc.weight"].shape[0],
            "num_hidden_layers": count_blocks(weights, blocks),
            "num_attention_heads": max(1, width // head),
            "hidden_act": hidden_act,
        }

    patches, words = weights["visual.conv1.weight"], weights["token_embedding.weight"]
    side = round((len(weights["visual.positional_embedding"]) - 1) ** 0.5)  # one position is the class token's
    sizes = {"patch_size": patches.shape[-1], "image_size": side * patches.shape[-1]}
    length = {"vocab_size": len(words), "max_position_embeddings": len(weights["positional_embedding"])}
    # The last two words of the vocabulary open and close a text.
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    return CLIPConfig(
        projection_dim=weights["text_projection"].shape[1],
        vision_config=tower("visual.", len(patches), vision_head) | sizes,
        text_config=tower("", words.shape[1], text_head) | length | ends,
    )
