"""Tiny checkpoints in published formats, from numbers that a name gives: the same here and where fixtures were made."""

import zlib
from pathlib import Path

import numpy as np
import torch
from transformers import CLIPTokenizer

FIXTURES = Path(__file__).parent / "fixtures"

# Byte pairs that a CLIP tokenizer joins, first to last.
MERGES = ["r e", "re d</w>", "c a", "ca t</w>", "o g</w>", "d og</w>", "t w", "tw o</w>", "a n", "an d</w>"]
MERGES += ["i n", "' s</w>", "s t", "st a", "sta r</w>", "l l</w>", "ba ll</w>", "b a", "b l", "bl u", "blu e</w>"]


def weight(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """float32 of about unit gain, drawn with the seed crc32(name); norms are near 1 and biases near 0."""
    values = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) < 2:
        values = values / 10 + (name.endswith("weight") and len(shape) == 1)
    else:
        values = values / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: weight(name, shape) for name, shape in shapes.items()}


def pictures(height: int, width: int, count: int = 2) -> torch.Tensor:
    """(count, height, width, 3) uint8: waves with noise, seeded by the size."""
    rng = np.random.RandomState(1000 * height + width)
    y, x = np.mgrid[0:height, 0:width][:, None, :, :, None] / 10
    phase = rng.uniform(0, 6, (2, count, 1, 1, 3))
    waves = np.sin(3 * y + phase[0]) + np.cos(2 * x + phase[1]) + rng.uniform(-0.5, 0.5, (count, height, width, 3))
    return torch.from_numpy((np.clip(waves / 5 + 0.5, 0, 1) * 255).astype(np.uint8))


def clip_words() -> list[str]:
    """CLIP's vocabulary over `MERGES`, in its order: bytes, bytes that end a word, pairs, the two ends of a text."""
    ranges = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [chr(256 + i) for i in range(256 - len(ranges))]
    letters = [chr(code) for code in ranges] + others
    pairs = [merge.replace(" ", "") for merge in MERGES]
    return [*letters, *(letter + "</w>" for letter in letters), *pairs, "<|startoftext|>", "<|endoftext|>"]


def save_clip_tokenizer(folder: Path) -> Path:
    merges = [tuple(merge.split()) for merge in MERGES]
    words = {word: i for i, word in enumerate(clip_words())}
    CLIPTokenizer(vocab=words, merges=merges, model_max_length=77).save_pretrained(folder)
    return folder


def clip_shapes(vision: int, text: int, layers: tuple[int, int], length: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a CLIP in OpenAI's names: pictures of 28 pixels in 4 patches, embeddings of 32 numbers.

    vision, text: widths. layers: of vision and text. length: tokens of a text.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "visual.class_embedding": (vision,),
        "visual.positional_embedding": (5, vision),
        "visual.conv1.weight": (vision, 3, 14, 14),
        "visual.proj": (vision, 32),
        "token_embedding.weight": (len(clip_words()), text),
        "positional_embedding": (length, text),
        "text_projection": (text, 32),
    }
    norms = {"visual.ln_pre": vision, "visual.ln_post": vision, "ln_final": text}
    for prefix, width, count in (("visual.", vision, layers[0]), ("", text, layers[1])):
        for block in (f"{prefix}transformer.resblocks.{i}" for i in range(count)):
            norms |= {f"{block}.ln_1": width, f"{block}.ln_2": width}
            shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
            for part, out, into in (("attn.out_proj", 1, 1), ("mlp.c_fc", 4, 1), ("mlp.c_proj", 1, 4)):
                shapes |= {
                    f"{block}.{part}.weight": (out * width, into * width),
                    f"{block}.{part}.bias": (out * width,),
                }
    return shapes | {f"{norm}.{kind}": (width,) for norm, width in norms.items() for kind in ("weight", "bias")}


# BERT's words in their order: padding, its other special tokens where they stand here, then whole words and pieces.
BERT_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "and", "red", "blue", "two", "cat", "dog"]
BERT_WORDS += ["ball", "##s", "star", ",", "!", "&", "."]
