"""Small Janus checkpoints in the published format.

Tests use random ones; the lab writes its trained model with the same functions.
"""

import math
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from thinkdraw.policies.drawing import write_record
from thinkdraw.types import Sampling

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
IMAGE, BOI, EOI = "<image_placeholder>", "<begin_of_image>", "<end_of_image>"
USER, ASSISTANT = "<|User|>", "<|Assistant|>"
SPECIAL_TOKENS = (BOS, EOS, PAD, IMAGE, BOI, EOI, USER, ASSISTANT)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|User|>: ' if message['role'] == 'user' else '<|Assistant|>: ' }}"
    "{% for part in message['content'] %}"
    "{{ '<image_placeholder>\\n' if part['type'] == 'image' else part['text'] }}"
    "{% endfor %}"
    "{{ '\\n\\n' if message['role'] == 'user' else '" + EOS + "' }}"
    "{% endfor %}"
    "{{ '<|Assistant|>:' if add_generation_prompt else '' }}"
)


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE with Janus's special tokens first.

    It begins every encoding with BOS.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def janus_config(
    tokenizer: Tokenizer, *, hidden: int, layers: int, heads: int, image_size: int, codes: int, patch: int = 8,
    channels: tuple[int, ...] | None = None, latent_channels: int = 64, res_blocks: int = 1, vision_hidden: int = 64,
    vision_layers: int = 2, max_positions: int = 2048, vocab_size: int | None = None,
) -> Any:  # fmt: skip
    """Make a JanusConfig with (image_size / patch)² image tokens per picture.

    channels: multipliers of the VQ model's 32 channels per resolution, log2(patch) + 1 of them.
    """
    from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

    channels = channels or (1,) * (int(math.log2(patch)) + 1)
    text = LlamaConfig(
        vocab_size=vocab_size or tokenizer.get_vocab_size(), hidden_size=hidden, num_hidden_layers=layers,
        intermediate_size=hidden * 8 // 3 // 32 * 32, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=max_positions,
        tie_word_embeddings=False, bos_token_id=tokenizer.token_to_id(BOS), eos_token_id=tokenizer.token_to_id(EOS),
    )  # fmt: skip
    # pad_token_id stays unset: torch freezes the embedding of a padding id, and unconditional rows consist of pads.
    vision = JanusVisionConfig(
        hidden_size=vision_hidden, num_hidden_layers=vision_layers, num_attention_heads=max(1, vision_hidden // 32),
        image_size=image_size, patch_size=patch, projection_dim=hidden, num_image_tokens=(image_size // patch) ** 2,
    )  # fmt: skip
    vq = JanusVQVAEConfig(
        embed_dim=8, num_embeddings=codes, latent_channels=latent_channels, base_channels=32,
        channel_multiplier=list(channels),
        num_res_blocks=res_blocks, num_patches=image_size // patch, projection_dim=hidden, image_token_embed_dim=hidden,
    )  # fmt: skip
    image_token_id: Any = tokenizer.token_to_id(IMAGE)
    return JanusConfig(
        text_config=text, vision_config=vision, vq_config=vq, image_token_id=image_token_id, tie_word_embeddings=False
    )


def build_directory(
    model: Any,
    tokenizer: Tokenizer,
    directory: Path | str,
    image_size: int,
    num_image_tokens: int,
    max_shard_size: str = "4GB",
) -> Path:
    """Write model and tokenizer as a folder that transformers' Janus loads.

    Returns the folder.
    """
    from transformers import GenerationConfig, JanusProcessor, PreTrainedTokenizerFast
    from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

    directory = Path(directory)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, padding_side="left",
        extra_special_tokens={"image_token": IMAGE, "boi_token": BOI, "eoi_token": EOI},
        model_max_length=model.config.text_config.max_position_embeddings,
    )  # fmt: skip
    square = {"height": image_size, "width": image_size}
    pictures = JanusImageProcessorPil(size=square, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor = JanusProcessor(pictures, fast, chat_template=CHAT_TEMPLATE, num_image_tokens=num_image_tokens)
    model.generation_config = GenerationConfig(
        bos_token_id=fast.bos_token_id, eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id,
        generation_kwargs={"boi_token_id": fast.convert_tokens_to_ids(BOI)},
    )  # fmt: skip
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    processor.save_pretrained(directory)
    return directory


_CORPUS = [
    "a photo of a red circle left of a blue square yes no",
    "I will draw two green triangles above one small yellow star on a white background. Is there a star? yes Yes no No",
]


_INLINE = Sampling()


def random_janus(
    directory: Path | str, *, hidden: int = 64, layers: int = 2, heads: int = 2, image_size: int = 16, patch: int = 4,
    codes: int = 64, vocab_size: int = 320, max_positions: int = 512, seed: int = 0, max_shard_size: str = "4GB",
    drawing: Sampling | None = _INLINE,
) -> Path:  # fmt: skip
    """Write a checkpoint with random weights, and return its folder.

    drawing: recorded as how it draws; None records nothing, as in published checkpoints.
    Its distributions are far from uniform and depend on the context, so that a wrong mask or position shows.
    """
    from transformers import JanusForConditionalGeneration

    tokenizer = train_tokenizer(_CORPUS, vocab_size)
    config = janus_config(
        tokenizer, hidden=hidden, layers=layers, heads=heads, image_size=image_size, codes=codes, patch=patch,
        max_positions=max_positions, latent_channels=32, vision_hidden=32, vision_layers=1,
        vocab_size=tokenizer.get_vocab_size() + 8,  # some ids without a text, as in published checkpoints
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    model = JanusForConditionalGeneration(config)
    scales = {"lm_head": 0.25, "generation_head": 0.2, "embed": 0.5, "language_model.layers": 0.15}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                scale = next((value for prefix, value in scales.items() if prefix in name), 0.2)
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        # Make some thoughts end early, by either of the two tokens that end one.
        ends = [tokenizer.token_to_id(EOS), tokenizer.token_to_id(BOI)]
        model.lm_head.weight[ends] *= 3
    folder = build_directory(model, tokenizer, directory, image_size, (image_size // patch) ** 2, max_shard_size)
    if drawing is not None:
        write_record(folder, drawing)
    return folder
