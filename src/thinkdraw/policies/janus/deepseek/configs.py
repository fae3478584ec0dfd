"""The config.json of DeepSeek's layout, to transformers' `JanusConfig` and back.

DeepSeek's config names the vision tower and the VQ model and gives no sizes of them. The weights have these sizes, so
they are read off the weights; only the number of attention heads cannot be seen there and goes by the tower's name.
"""

import math
from collections.abc import Mapping

from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from thinkdraw.errors import UserError
from thinkdraw.runtime.json_types import JsonMapping, JsonObject

# Attention heads of a tower, by name (DeepSeek's janus/models/siglip_vit.py).
TOWER_HEADS = {"siglip_large_patch16_384": 16, "siglip_so400m_patch14_384": 16, "siglip_so400m_patch14_224": 16}

TOWER = "siglip_large_patch16_384"  # Janus-Pro's
IMAGE_TOKEN_ID = 100_581  # of <image_placeholder> in the published vocabulary

Shapes = Mapping[str, tuple[int, ...]]


def to_transformers(config: JsonMapping, shapes: Shapes | None, image_token_id: int) -> JanusConfig:
    """Make transformers' config of DeepSeek's and of the weights' shapes.

    shapes: under transformers' names; None gives tower and VQ model the sizes of the published checkpoints.
    image_token_id: of the token that stands for a patch of a picture. Raises UserError for what is no Janus, or one
    whose tower is read at another layer than the last.
    """
    missing = [name for name in ("language_config", "vision_config", "gen_vision_config") if name not in config]
    if missing:
        raise UserError(f"config.json has model_type multi_modality but no {missing[0]}. Copy it again.")
    tower = config["vision_config"].get("params", {})
    if tower.get("select_layer", -1) != -1:
        raise UserError(
            f"config.json: select_layer={tower['select_layer']} of the vision tower; Janus reads the last, -1."
        )
    # What DeepSeek leaves out are the defaults of its Llama, which are transformers'. pad_token_id is left out on purpose:
    # with it torch would never train the embedding that guidance's unconditional rows consist of.
    language = {
        name: value
        for name, value in config["language_config"].items()
        if name not in ("model_type", "torch_dtype", "dtype", "_attn_implementation", "pad_token_id")
    }
    text = LlamaConfig(**{**language, "tie_word_embeddings": False})
    if shapes is None:
        return _published(text, config, image_token_id)
    width, side, patch = _tower_sizes(shapes)
    mlp = shapes["model.vision_model.encoder.layers.0.mlp.fc1.weight"][0]
    vision = JanusVisionConfig(
        hidden_size=width,
        num_hidden_layers=_count(shapes, "model.vision_model.encoder.layers."),
        num_attention_heads=_heads(tower, width),
        image_size=side * patch,
        patch_size=patch,
        mlp_ratio=mlp / width,
        projection_dim=shapes["model.aligner.fc1.weight"][0],
        num_image_tokens=side * side,
    )
    return JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=_vq(shapes, side),
        image_token_id=image_token_id,
        tie_word_embeddings=False,
    )


def to_deepseek(config: JanusConfig, dtype: str) -> JsonObject:
    """Make DeepSeek's config.json of transformers' config.

    dtype: of the weights, as torch names it.
    """
    text, vision, vq = config.text_config, config.vision_config, config.vq_config
    assert isinstance(text, LlamaConfig) and isinstance(vision, JanusVisionConfig) and isinstance(vq, JanusVQVAEConfig)
    width, codes = text.hidden_size, vq.num_embeddings
    # Heads are said only where the name of the published tower would say otherwise.
    heads = {} if vision.num_attention_heads == TOWER_HEADS[TOWER] else {"heads": vision.num_attention_heads}
    language = {
        name: value
        for name, value in text.to_diff_dict().items()
        if name not in ("transformers_version", "tie_word_embeddings", "_name_or_path", "dtype")
    }
    aligner = {"depth": 2, "n_embed": width, "projector_type": "mlp_gelu"}
    return {
        "model_type": "multi_modality",
        "architectures": ["MultiModalityCausalLM"],
        "torch_dtype": dtype,
        "language_config": {
            **language,
            "model_type": "llama",
            "torch_dtype": dtype,
            # Janus's own readers rely on Llama's defaults of their transformers; these four say which model it is.
            "hidden_size": width,
            "num_hidden_layers": text.num_hidden_layers,
            "num_attention_heads": text.num_attention_heads,
            "vocab_size": text.vocab_size,
        },
        "vision_config": {
            "cls": "CLIPVisionTower",
            "model_type": "vision",
            "params": {
                "image_size": vision.image_size,
                "model_name": TOWER,
                "select_feature": "same",
                "select_layer": -1,
                **heads,
            },
        },
        "aligner_config": {
            "cls": "MlpProjector",
            "model_type": "aligner",
            "params": {**aligner, "input_dim": vision.hidden_size},
        },
        "gen_vision_config": {
            "cls": "VQ-16",
            "model_type": "gen_vision",
            "params": {"image_token_size": codes, "n_embed": vq.embed_dim},
        },
        "gen_aligner_config": {
            "cls": "MlpProjector",
            "model_type": "gen_aligner",
            "params": {**aligner, "input_dim": vq.embed_dim},
        },
        "gen_head_config": {
            "cls": "vision_head",
            "model_type": "gen_head",
            "params": {"image_token_embed": width, "image_token_size": codes, "n_embed": width},
        },
    }


def _published(text: LlamaConfig, config: JsonMapping, image_token_id: int) -> JanusConfig:
    width, picture = text.hidden_size, config["gen_vision_config"]["params"]
    vision = JanusVisionConfig(projection_dim=width)
    vq = JanusVQVAEConfig(
        embed_dim=picture["n_embed"],
        num_embeddings=picture["image_token_size"],
        num_patches=24,
        projection_dim=width,
        image_token_embed_dim=width,
    )
    return JanusConfig(
        text_config=text, vision_config=vision, vq_config=vq, image_token_id=image_token_id, tie_word_embeddings=False
    )


def _tower_sizes(shapes: Shapes) -> tuple[int, int, int]:
    """Read width, patches along a side, and pixels along a patch off the weights."""
    width, _, patch, _ = shapes["model.vision_model.embeddings.patch_embedding.weight"]
    num_patches = shapes["model.vision_model.embeddings.position_embedding.weight"][0]
    return width, math.isqrt(num_patches), patch


def _heads(tower: JsonMapping, width: int) -> int:
    name = tower.get("model_name", "")
    heads = tower.get("heads", TOWER_HEADS.get(name))
    if heads is None or width % heads:
        raise UserError(
            f"config.json: vision tower {name!r} is none of {', '.join(TOWER_HEADS)}, so its heads are unknown."
        )
    return heads


def _vq(shapes: Shapes, side: int) -> JanusVQVAEConfig:
    base = shapes["model.vqmodel.encoder.conv_in.weight"][0]
    num_levels = _count(shapes, "model.vqmodel.encoder.down.")
    widths = [shapes[f"model.vqmodel.encoder.down.{i}.block.0.conv2.weight"][0] for i in range(num_levels)]
    codes, code_width = shapes["model.vqmodel.quantize.embedding.weight"]
    width = shapes["model.generation_head.proj_out.weight"][0]
    return JanusVQVAEConfig(
        embed_dim=code_width,
        num_embeddings=codes,
        latent_channels=shapes["model.vqmodel.encoder.conv_out.weight"][0],
        base_channels=base,
        channel_multiplier=[channels // base for channels in widths],
        num_res_blocks=_count(shapes, "model.vqmodel.encoder.down.0.block."),
        num_patches=side,
        projection_dim=shapes["model.generation_aligner.fc1.weight"][0],
        image_token_embed_dim=width,
    )


def _count(shapes: Shapes, prefix: str) -> int:
    """Count the modules of a list, by the numbers that follow its prefix."""
    return len({name[len(prefix) :].partition(".")[0] for name in shapes if name.startswith(prefix)})
