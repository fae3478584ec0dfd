"""Tiny BLIP-VQA and GIT-VQA checkpoints in the published formats: BERT's tokenizer with few words, random weights."""

import json
from pathlib import Path

import torch
from tests.judges.helpers_vlm import CLIP_MEAN, CLIP_STD
from transformers import BertTokenizer, BlipConfig, BlipForQuestionAnswering, GitConfig, GitForCausalLM

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", ",", "-", "a", "the", "is", "there", "red", "green", "dog"]
WORDS += ["bench", "cup", "two", "yes", "no"]
TEXT = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2)
VISION = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, patch_size=8)


def write(folder, model, words, preprocessor):
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if weight.ndim >= 2 or not name.endswith(("bias", "weight")):
            weight.data = torch.randn(weight.shape, generator=generator) * 1.5 / weight[0].numel() ** 0.5
    model.eval().save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(words)}
    BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=512).save_pretrained(folder)
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def blip(folder, words=WORDS):
    """As Salesforce/blip-vqa-capfilt-large, which was made for 384 pixels: here 32; [DEC] and [ENC] end the vocabulary."""
    size = len(words)
    text = {"vocab_size": size + 2, "bos_token_id": size, "sep_token_id": 3, "encoder_hidden_size": 32, **TEXT}
    config = BlipConfig(
        text_config={"projection_dim": 32, "max_position_embeddings": 64, **text},
        vision_config={"image_size": 32, "projection_dim": 32, **VISION}, projection_dim=32,
    )  # fmt: skip
    preprocessor = {
        "image_processor_type": "BlipImageProcessor", "processor_class": "BlipProcessor", "do_resize": True,
        "size": {"height": 32, "width": 32}, "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    }  # fmt: skip
    return write(folder, BlipForQuestionAnswering(config), words, preprocessor)


def git(folder, words=WORDS):
    """As microsoft/git-large-vqav2: CLIP's picture preparation, the picture's tokens before the text's."""
    config = GitConfig(
        vision_config={"image_size": 32, **VISION}, vocab_size=len(words), max_position_embeddings=64,
        bos_token_id=2, eos_token_id=3, **TEXT,
    )  # fmt: skip
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor", "processor_class": "GitProcessor", "do_resize": True,
        "size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "resample": 3,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "do_convert_rgb": True,
        "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    }  # fmt: skip
    return write(folder, GitForCausalLM(config), words, preprocessor)
