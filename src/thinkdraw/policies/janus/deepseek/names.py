"""The names of Janus's weights in DeepSeek's and in transformers' layout.

DeepSeek stacks query, key and value of the vision tower in one `qkv` weight, which transformers holds as three. The
tower's attention pool and the count of used codes exist only in DeepSeek's layout; nothing in Janus reads them.
"""

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from thinkdraw.errors import UserError

# The beginning of a name: DeepSeek's, transformers'. The first that fits counts.
PREFIXES = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_model.vision_tower.blocks.", "model.vision_model.encoder.layers."),
    ("vision_model.vision_tower.pos_embed", "model.vision_model.embeddings.position_embedding.weight"),
    ("vision_model.vision_tower.patch_embed.proj.", "model.vision_model.embeddings.patch_embedding."),
    ("vision_model.vision_tower.norm.", "model.vision_model.post_layernorm."),
    ("aligner.layers.0.", "model.aligner.fc1."),
    ("aligner.layers.2.", "model.aligner.hidden_layers.0."),
    ("gen_aligner.layers.0.", "model.generation_aligner.fc1."),
    ("gen_aligner.layers.2.", "model.generation_aligner.hidden_layers.0."),
    ("gen_embed.", "model.generation_embeddings."),
    ("gen_head.output_mlp_projector.", "model.generation_head.proj_out."),
    ("gen_head.vision_head.", "model.generation_head.vision_head."),
    ("gen_vision_model.encoder.conv_blocks.", "model.vqmodel.encoder.down."),
    ("gen_vision_model.decoder.conv_blocks.", "model.vqmodel.decoder.up."),
    ("gen_vision_model.encoder.mid.0.", "model.vqmodel.encoder.mid.block_1."),
    ("gen_vision_model.encoder.mid.1.", "model.vqmodel.encoder.mid.attn_1."),
    ("gen_vision_model.encoder.mid.2.", "model.vqmodel.encoder.mid.block_2."),
    ("gen_vision_model.decoder.mid.0.", "model.vqmodel.decoder.mid.block_1."),
    ("gen_vision_model.decoder.mid.1.", "model.vqmodel.decoder.mid.attn_1."),
    ("gen_vision_model.decoder.mid.2.", "model.vqmodel.decoder.mid.block_2."),
    ("gen_vision_model.", "model.vqmodel."),
)
# What follows the prefix, by transformers' prefix.
INNER = {
    "model.vision_model.encoder.layers.": (
        (".attn.proj.", ".self_attn.projection_layer."),
        (".attn.q_norm.", ".self_attn.q_norm."),
        (".attn.k_norm.", ".self_attn.k_norm."),
        (".attn.qkv.", ".self_attn.qkv."),
        (".norm1.", ".layer_norm1."),
        (".norm2.", ".layer_norm2."),
    ),
    "model.vqmodel.encoder.down.": ((".res.", ".block."),),
    "model.vqmodel.decoder.up.": ((".res.", ".block."),),
}
# Only in DeepSeek's layout, and read by nothing: the tower's pooling head, and a training statistic of the codebook.
UNUSED = re.compile(r"vision_model\.vision_tower\.attn_pool\.|gen_vision_model\.quantize\.codebook_used$")
QKV = ("q_proj", "k_proj", "v_proj")
POSITIONS = "model.vision_model.embeddings.position_embedding.weight"


def to_transformers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and split DeepSeek's weights.

    Raises UserError for a name that Janus does not have.
    """
    renamed: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if UNUSED.match(name):
            continue
        target = _translate(name, 0)
        if target is None:
            raise UserError(
                f"the weight {name} is none of Janus's in DeepSeek's layout. Is this a JanusFlow checkpoint?"
            )
        if ".self_attn.qkv." in target:
            for single, part in zip(QKV, weight.chunk(len(QKV)), strict=True):
                renamed[target.replace(".qkv.", f".{single}.")] = part
        else:
            renamed[target] = weight.squeeze(0) if target == POSITIONS else weight
    return renamed


def to_deepseek(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and stack transformers' weights: the inverse of `to_transformers`."""
    return dict(_stacked(weights))


def _stacked(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, weight in weights.items():
        # Only the tower's projections are stacked; the language model has a q_proj of its own.
        if name.startswith("model.vision_model.") and any(f".{single}." in name for single in QKV):
            if ".q_proj." not in name:
                continue
            singles = [weights[name.replace(".q_proj.", f".{single}.")] for single in QKV]
            name, weight = name.replace(".q_proj.", ".qkv."), torch.cat(singles)
        target = _translate(name, 1)
        if target is None:
            raise UserError(f"the weight {name} has no place in DeepSeek's layout of Janus.")
        yield target, weight.unsqueeze(0) if name == POSITIONS else weight


def _translate(name: str, side: int) -> str | None:
    """Translate a name between the layouts, or return None for an unknown one.

    side: of the tables, that the name is from; 0 is DeepSeek's, 1 is transformers'.
    """
    for pair in PREFIXES:
        if name.startswith(pair[side]):
            rest = name[len(pair[side]) :]
            for inner in INNER.get(pair[1], ()):
                # A leading dot keeps the block's number apart, as in `3.attn.proj.weight`.
                rest = rest.replace(inner[side], inner[1 - side])
            return pair[1 - side] + rest
    return None
