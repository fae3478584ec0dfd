"""Tiny vision-language checkpoints in the published formats, with random weights: LLaVA, LLaVA-OneVision, Qwen2.5-VL."""

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

TEXT = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=1024, tie_word_embeddings=False,
)  # fmt: skip
VISION = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
)
GAIN = 1.6  # large enough that the picture changes the answer
CLIP_MEAN, CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
WORDS = ["yes", "Yes", "no", "No", "maybe", "Is there a red circle in the picture?", "Answer yes or no.", "two cups"]


def pictures(count, size=28, seed=0):
    """(count, size, size, 3) uint8 of plain patches, different enough that a random model tells them apart."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    side = size // 4
    return torch.from_numpy(coarse.repeat(side, axis=1).repeat(side, axis=2))


def tokenizer(special, words=WORDS, bos=None):
    """A byte-level BPE as Qwen's, small: every byte, the words of `words` with and without a space before them."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator([*words, *(f" {word}" for word in words)] * 3, trainer)
    raw.add_special_tokens([*special, *([bos] if bos else [])])
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, raw.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token=special[0], eos_token=special[1], bos_token=bos)


def text_of(made):
    return TEXT | {"vocab_size": len(made), "eos_token_id": made.eos_token_id, "bos_token_id": made.bos_token_id}


def write(folder, model, made, files):
    """`model` with weights large enough that pictures matter, its tokenizer, and the other published files."""
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.ndim >= 2:
            weight.data = torch.randn(weight.shape, generator=generator) * GAIN / weight[0].numel() ** 0.5
        elif not name.endswith(("bias", "weight")):  # the tokens that vision towers add
            weight.data = torch.randn(weight.shape, generator=generator)
        if "embed_tokens" in name:
            weight.data *= 3
    loud = sorted(i for token, i in made.get_vocab().items() if token.strip("Ġ").lower() in ("yes", "no", "maybe"))
    head = torch.randn((len(loud), 32), generator=generator)
    model.lm_head.weight.data[loud] = head  # greedy answers are yes, no or maybe, by the picture
    model.eval().save_pretrained(folder)
    made.save_pretrained(folder)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (Path(folder) / name).write_text(text)
    return folder


def llava(folder):
    """As llava-hf/llava-1.5: a template with USER and ASSISTANT, a beginning-of-text token, CLIP's image processor."""
    made = tokenizer(["<pad>", "</s>", "<image>"], bos="<s>")
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "projection_dim": 32, **VISION},
        text_config={"model_type": "llama", **text_of(made)},
        image_token_index=made.convert_tokens_to_ids("<image>"), image_seq_length=4, vision_feature_layer=-2,
    )  # fmt: skip
    template = (
        "{% for message in messages %}{{ message['role'].upper() + ': ' }}{% for part in message['content'] %}"
        "{{ '<image>\n' if part['type'] == 'image' else part['text'] + ' ' }}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    )
    size = {"shortest_edge": 28}
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor", "processor_class": "LlavaProcessor", "do_resize": True, "size": size,
        "do_center_crop": True, "crop_size": {"height": 28, "width": 28}, "do_normalize": True, "do_rescale": True,
        "image_mean": CLIP_MEAN, "image_std": CLIP_STD, "resample": 3, "do_convert_rgb": True,
    }  # fmt: skip
    processor = {
        "processor_class": "LlavaProcessor", "image_token": "<image>", "patch_size": 14,
        "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1,
    }  # fmt: skip
    files = {"preprocessor_config.json": preprocessor, "processor_config.json": processor}
    return write(folder, LlavaForConditionalGeneration(config), made, {**files, "chat_template.jinja": template})


def onevision(folder):
    """As llava-hf/llava-onevision-qwen2: pictures in patches of several resolutions, and a video processor."""
    made = tokenizer(["<|endoftext|>", "<|im_end|>", "<|im_start|>", "<image>", "<video>"])
    config = LlavaOnevisionConfig(
        vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **VISION},
        text_config={"model_type": "qwen2", **text_of(made)},
        image_token_index=made.convert_tokens_to_ids("<image>"), video_token_index=made.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[28, 28], [28, 56], [56, 28], [56, 56]], vision_aspect_ratio="anyres_max_9",
        vision_feature_select_strategy="full", vision_feature_layer=-1,
    )  # fmt: skip
    preprocessor = {
        "image_processor_type": "LlavaOnevisionImageProcessor", "processor_class": "LlavaOnevisionProcessor",
        "do_resize": True, "size": {"height": 28, "width": 28}, "do_normalize": True, "do_rescale": True, "do_pad": True,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3, "do_convert_rgb": True,
        "image_grid_pinpoints": config.image_grid_pinpoints,
    }  # fmt: skip
    processor = {
        "processor_class": "LlavaOnevisionProcessor", "num_image_tokens": 4, "image_token": "<image>",
        "video_token": "<video>", "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9",
    }  # fmt: skip
    template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
        "{% for part in message['content'] %}{{ '<image>\n' if part['type'] == 'image' else '\n' + part['text'] }}"
        "{% endfor %}{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    video = {"video_processor_type": "LlavaOnevisionVideoProcessor", "processor_class": "LlavaOnevisionProcessor"}
    files = {"preprocessor_config.json": preprocessor, "video_preprocessor_config.json": video}
    files |= {"processor_config.json": processor, "chat_template.json": {"chat_template": template}}
    return write(folder, LlavaOnevisionForConditionalGeneration(config), made, files)


def qwen(folder, words=WORDS):
    """As Qwen/Qwen2.5-VL: pictures of any size, rotary positions in three dimensions, no processor_config.json."""
    special = ["<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    made = tokenizer([*special, "<|video_pad|>"], words)
    ids = dict(zip(special, made.convert_tokens_to_ids(special)))
    config = Qwen2_5_VLConfig(
        vision_config={
            "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48, "depth": 2, "num_heads": 2,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        text_config={
            "vocab_size": len(made), "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]}, **TEXT
        },
        bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|im_end|>"],
        image_token_id=ids["<|image_pad|>"], video_token_id=made.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=ids["<|vision_start|>"], vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    preprocessor = {
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
        "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    }  # fmt: skip
    template = (
        "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
        "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    files = {"preprocessor_config.json": preprocessor, "chat_template.json": {"chat_template": template}}
    return write(folder, Qwen2_5_VLForConditionalGeneration(config), made, files)
