"""Tiny random checkpoints of detectors, CLIP and DPT as they are published: same keys, file names and processor configs."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertTokenizer,
    BitConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    DPTConfig,
    DPTForDepthEstimation,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    MMGroundingDinoConfig,
    MMGroundingDinoForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    PreTrainedModel,
    SwinConfig,
)

VOCABULARY = "a photo of the cat dog red blue object colored car traffic light wooden bench - tv remote circle"
WORDS = VOCABULARY.split()
NUM_COCO_CLASSES = 80
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def pictures(count: int, height: int = 48, width: int = 72) -> torch.Tensor:
    """(count, height, width, 3) uint8 of coloured blocks, 4 pixels wide."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (count, -(-height // 4), -(-width // 4), 3), dtype=np.uint8)
    return torch.from_numpy(blocks.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width])


def spoilt(folder: Path, made: Path, spoil: str) -> Path:
    """A copy of a checkpoint with a thing wrong: "model_type", "truncated" weights, or files that are not there."""
    shutil.copytree(folder, made)
    if spoil == "model_type":
        config = json.loads((made / "config.json").read_text())
        (made / "config.json").write_text(json.dumps(config | {"model_type": "janus"}))
    elif spoil == "truncated":
        (made / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    else:
        for name in spoil.split():
            (made / name).unlink()
    return made


SPOILS = [
    ("config.json", r"has no config\.json"),
    ("model_type", "model_type=janus, not "),
    ("model.safetensors", "cannot be read"),
    ("truncated", "cannot be read"),
]
TEXT_SPOILS = [
    *SPOILS,
    ("tokenizer.json tokenizer_config.json", "its tokenizer knows no words"),
    ("preprocessor_config.json", "tokenizer or image processor cannot be read"),
]


def grounding_dino(folder: Path, mm: bool = False) -> Path:
    """As IDEA-Research/grounding-dino-tiny, or openmmlab-community/mm_grounding_dino_tiny_o365v1_goldg."""
    sizes = dict(
        backbone_config=_swin([2, 3, 4]),
        text_config=_bert(),
        num_queries=12,
        d_model=32,
        encoder_layers=1,
        encoder_ffn_dim=32,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=32,
        decoder_attention_heads=2,
    )
    torch.manual_seed(0)
    if mm:
        model = MMGroundingDinoForObjectDetection(MMGroundingDinoConfig(**sizes))
    else:
        model = GroundingDinoForObjectDetection(GroundingDinoConfig(**sizes))
    _shake(model)
    _save_without(model, folder, "swin.layernorm.")
    _bert_tokenizer(folder)
    size = {"shortest_edge": 64, "longest_edge": 107}  # published: 800 and 1333
    settings = {"size": size, "resample": 2, "do_pad": True, "format": "coco_detection"} | IMAGENET
    _preprocessor(folder, "GroundingDinoImageProcessor", settings)
    return folder


def owlv2(folder: Path, words: Sequence[str] = WORDS) -> Path:
    """As google/owlv2-base-patch16-ensemble."""
    tokenizer = _clip_tokenizer(folder, words, pad_token="!", model_max_length=16)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Owlv2Config(
        text_config=small | {"vocab_size": len(tokenizer), "max_position_embeddings": 16},
        vision_config=small | {"image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = Owlv2ForObjectDetection(config)
    _shake(model, 0.1)
    model.save_pretrained(folder)
    settings = {"size": {"height": 64, "width": 64}, "resample": 2, "do_pad": True, "rescale_factor": 1 / 255} | OPENAI
    _preprocessor(folder, "Owlv2ImageProcessor", settings)
    return folder


def mask2former(folder: Path, num_classes: int = NUM_COCO_CLASSES) -> Path:
    """As facebook/mask2former-swin-small-coco-instance."""
    config = Mask2FormerConfig(
        backbone_config=_swin([1, 2, 3, 4]),
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=32,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=32,
        num_queries=10,
        id2label={i: f"class {i}" for i in range(num_classes)},
        label2id={f"class {i}": i for i in range(num_classes)},
    )
    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(config)
    _shake(model)
    _save_without(model, folder, "swin.layernorm.")
    settings = {"size": {"height": 384, "width": 384}, "resample": 2, "ignore_index": 255} | IMAGENET
    _preprocessor(folder, "Mask2FormerImageProcessor", settings | {"num_labels": num_classes})
    return folder


def clip(folder: Path, words: Sequence[str] = WORDS) -> Path:
    """As openai/clip-vit-large-patch14."""
    tokenizer = _clip_tokenizer(folder, words, pad_token="<|endoftext|>", model_max_length=77)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = CLIPConfig(
        text_config=small | ids | {"vocab_size": len(tokenizer), "max_position_embeddings": 77},
        vision_config=small | {"image_size": 28, "patch_size": 14},
        projection_dim=16,
    )
    torch.manual_seed(0)
    model = CLIPModel(config)
    _shake(model, 0.3)
    model.save_pretrained(folder)
    settings = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}, "resample": 3} | OPENAI
    _preprocessor(folder, "CLIPImageProcessor", settings | {"do_center_crop": True})
    return folder


def dpt(folder: Path) -> Path:
    """As Intel/dpt-hybrid-midas: BiT stem, then a ViT, for 384×384."""
    config = DPTConfig(
        is_hybrid=True,
        backbone_config=BitConfig(
            global_padding="same", layer_type="bottleneck", depths=[1, 1, 1], hidden_sizes=[16, 16, 16], num_groups=4,
            embedding_size=8, out_features=["stage1", "stage2", "stage3"], embedding_dynamic_padding=True,
        ),
        backbone_featmap_shape=[1, 16, 24, 24],
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[16, 16, 8, 8],
        fusion_hidden_size=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model = DPTForDepthEstimation(config)
    _shake(model)
    model.head.head[4].bias.data.fill_(5.0)  # the last ReLU must not flatten the map
    _save_without(model, folder, "neck.fusion_stage.layers.0.residual_layer1.")
    size = {"height": 384, "width": 384}
    settings = {"size": size, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    _preprocessor(folder, "DPTImageProcessor", settings)
    return folder


def _swin(stages: list[int]) -> SwinConfig:
    return SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_indices=stages
    )


def _bert() -> BertConfig:
    return BertConfig(
        vocab_size=1030 + len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )


def _shake(model: torch.nn.Module, noise: float = 0.15) -> None:
    """Weights far enough from zero that different inputs give different outputs."""
    for parameter in model.parameters():
        parameter.data += noise * torch.randn(parameter.shape)


def _save_without(model: PreTrainedModel, folder: Path, part: str) -> None:
    """Published checkpoints are older than some parts of transformers' classes, which no forward pass uses."""
    model.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if part not in name}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _bert_tokenizer(folder: Path) -> None:
    """bert-base-uncased's ids for the specials, "." and "?", which the model has built in; words follow."""
    fixed = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1012: ".", 1029: "?"}
    vocab = {fixed.get(i, f"[unused{i}]"): i for i in range(1030)}
    vocab |= {word: 1030 + i for i, word in enumerate(WORDS)}
    BertTokenizer(vocab=vocab, model_max_length=512).save_pretrained(folder)


def _clip_tokenizer(folder: Path, words: Sequence[str], pad_token: str, model_max_length: int) -> CLIPTokenizer:
    """Byte pairs that make up whole words, "!" at 0 and the two specials at the end, as OpenAI's vocabulary has them."""
    letters = sorted(set("".join(words)) - {"!"})
    vocab, merges = ["!", *letters, *(f"{c}</w>" for c in letters)], []
    for word in words:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            if (pair := (parts[0], parts[1])) not in merges:
                merges.append(pair)
                vocab.append("".join(pair))
            parts = ["".join(pair), *parts[2:]]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={token: i for i, token in enumerate(dict.fromkeys(vocab))}, merges=merges, pad_token=pad_token,
        model_max_length=model_max_length,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer


def _preprocessor(folder: Path, kind: str, settings: dict) -> None:
    switches = {"do_resize": True, "do_rescale": True, "do_normalize": True}
    config = {"image_processor_type": kind} | switches | settings
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
