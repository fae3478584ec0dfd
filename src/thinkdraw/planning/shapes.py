"""Model shapes to plan for: the published ones by name, or the config.json of a checkpoint. Weights are only counted."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from thinkdraw.errors import UserError
from thinkdraw.policies.lora import LoraSettings
from thinkdraw.runtime.json_types import JsonObject

# Language models of Janus-Pro: table 1 of arXiv 2501.17811; the width of their MLPs: config.json of the checkpoints.
JANUS_PRO: dict[str, JsonObject] = {
    "janus-pro-1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16},
    "janus-pro-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 30, "num_attention_heads": 32},
}  # fmt: skip


def janus_pro_config(name: str, num_layers: int | None = None) -> Any:
    """The JanusConfig of a published shape. num_layers: of the language model, in place of the published number."""
    from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

    language: JsonObject = JANUS_PRO[name] | ({"num_hidden_layers": num_layers} if num_layers else {})
    width, heads = language["hidden_size"], language["num_attention_heads"]
    text = LlamaConfig(
        **language, num_key_value_heads=heads, vocab_size=102_400, max_position_embeddings=16_384,
        tie_word_embeddings=False,
    )  # fmt: skip
    vision = JanusVisionConfig(projection_dim=width, num_image_tokens=576, image_size=384, patch_size=16)
    vq = JanusVQVAEConfig(num_embeddings=16_384, num_patches=24, projection_dim=width, image_token_embed_dim=width)
    return JanusConfig(text_config=text, vision_config=vision, vq_config=vq, tie_word_embeddings=False)


def find_config(name: str) -> Any:
    """The JanusConfig of a published shape, of its Hugging Face id, or of a checkpoint folder. Raises UserError."""
    from transformers import JanusConfig, PreTrainedConfig

    if (published := name.rpartition("/")[2].lower()) in JANUS_PRO and not Path(name).is_dir():
        return janus_pro_config(published)
    if not Path(name, "config.json").is_file():
        raise UserError(
            f"policy={name} is no folder with a config.json, which has the shape to plan for. Give one, or "
            f"policy={' or policy='.join(JANUS_PRO)}."
        )
    try:
        model_type = PreTrainedConfig.get_config_dict(name)[0].get("model_type")
        if model_type != "janus":
            raise UserError(f"policy={name} has model_type={model_type}; the planner knows the Janus family only.")
        return JanusConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"policy={name}: config.json cannot be read: {' '.join(str(error).split())[:160]}.") from error


@dataclass(frozen=True)
class Weights:
    """Numbers of parameters. drawing: of all that thinks and draws, layers and heads among it. adapters: 0 without."""

    total: int
    drawing: int
    layers: int
    text_head: int
    image_head: int
    adapters: int

    @property
    def trained(self) -> int:
        return self.adapters or self.drawing


def count_weights(config: Any, lora: LoraSettings | None) -> Weights:
    frozen: Any = lora  # hashable, which pyright does not see
    return _count(json.dumps(config.to_dict(), default=str), frozen)


@cache
def _count(config: str, lora: LoraSettings | None) -> Weights:
    import torch
    from transformers import JanusConfig, JanusForConditionalGeneration

    with torch.device("meta"):  # no weight gets memory
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
