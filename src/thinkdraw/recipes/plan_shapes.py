"""Model shapes to plan for: the published ones by name, or the config.json of a checkpoint; weights are only counted."""

from pathlib import Path
from typing import Any

from thinkdraw.errors import UserError

# Language models of Janus-Pro, table 1 of arXiv 2501.17811; the widths of their MLPs from the checkpoints' config.json.
JANUS_PRO = {
    "janus-pro-1b": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
    "janus-pro-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 30,
        "num_attention_heads": 32,
    },
}


def janus_pro_config(name: str, num_layers: int | None = None) -> Any:
    """The JanusConfig of a published shape; num_layers: of the language model, another number than published."""
    from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

    language = JANUS_PRO[name] | ({"num_hidden_layers": num_layers} if num_layers else {})
    width = language["hidden_size"]
    heads = language["num_attention_heads"]
    text = LlamaConfig(
        **language, num_key_value_heads=heads, vocab_size=102_400, max_position_embeddings=16_384, tie_word_embeddings=False
    )  # fmt: skip
    vision = JanusVisionConfig(projection_dim=width, num_image_tokens=576, image_size=384, patch_size=16)
    vq = JanusVQVAEConfig(num_embeddings=16_384, num_patches=24, projection_dim=width, image_token_embed_dim=width)
    return JanusConfig(
        text_config=text, vision_config=vision, vq_config=vq, image_token_id=100_581, tie_word_embeddings=False
    )


def find_config(name: str) -> Any:
    """The JanusConfig of a published shape, of its Hugging Face id, or of a checkpoint folder. Raises UserError."""
    from transformers import JanusConfig

    if (published := name.rpartition("/")[2].lower()) in JANUS_PRO and not Path(name).is_dir():
        return janus_pro_config(published)
    if not Path(name, "config.json").is_file():
        raise UserError(
            f"policy {name}: nothing to plan for. Give a folder with config.json, or one of {', '.join(JANUS_PRO)}."
        )
    try:
        config = JanusConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise UserError(f"policy {name}: config.json cannot be read ({' '.join(str(error).split())[:160]}).") from error
    if config.model_type != "janus":
        raise UserError(f"policy {name} has model_type={config.model_type}; the planner knows the Janus family.")
    return config
