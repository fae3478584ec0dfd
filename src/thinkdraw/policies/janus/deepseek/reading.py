"""Reads a checkpoint in DeepSeek's layout: weights, config, tokenizer, processor."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import Tensor
from transformers import JanusConfig, JanusProcessor, PreTrainedTokenizerFast
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

from thinkdraw.errors import UserError
from thinkdraw.policies.janus import tiny
from thinkdraw.policies.janus.deepseek import configs, names
from thinkdraw.runtime.json_types import JsonObject

# A single file or an index of shards; safetensors before `.bin`, which torch reads with weights_only=True.
WEIGHTS = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")
PICTURE_SETTINGS = ("do_normalize", "image_mean", "image_std", "min_size", "rescale_factor")
SPECIAL = {"bos_token": tiny.BOS, "eos_token": tiny.EOS, "pad_token": tiny.PAD}
IMAGE_TOKENS = {"image_token": tiny.IMAGE, "boi_token": tiny.BOI, "eoi_token": tiny.EOI}


def folder_of(path: str) -> Path:
    """Find a checkpoint's folder; download a Hugging Face model id where needed."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.bin", "*.model"]
    try:
        return Path(snapshot_download(path, allow_patterns=patterns, ignore_patterns=["*.pth", "*.pt"]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        line = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"policy {path} is neither a folder here nor a readable model id: {line}.") from error


def read_weights(folder: Path) -> tuple[JanusConfig, dict[str, Tensor]]:
    """Read config and weights, under transformers' names.

    Raises UserError for what is missing or cut short.
    """
    weights = names.to_transformers(_read_files(folder))
    if whole := [name for name, weight in weights.items() if not weight.is_floating_point()]:
        raise UserError(
            f"policy {folder}: the weight {whole[0]} holds {weights[whole[0]].dtype}. Copy or download it again."
        )
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    tokenizer = read_tokenizer(folder)
    image: Any = tokenizer.convert_tokens_to_ids(tiny.IMAGE)
    try:
        return configs.to_transformers(_json(folder / "config.json"), shapes, image), weights
    except KeyError as missing:
        raise UserError(f"policy {folder} lacks {missing}. Copy or download it again.") from None
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, StrictDataclassError) as error:
        line = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"policy {folder}: config.json and the weights do not fit ({line}). Copy both again."
        ) from error


def read_config(path: str) -> JanusConfig:
    """Read the config alone, for a plan, with the published sizes of tower and VQ."""
    from transformers import PreTrainedConfig

    return configs.to_transformers(PreTrainedConfig.get_config_dict(path)[0], None, configs.IMAGE_TOKEN_ID)


def read_processor(folder: Path, num_image_tokens: int) -> JanusProcessor:
    """Read the processor; questions begin with the system prompt, as in DeepSeek's."""
    settings = _json(folder / "preprocessor_config.json")
    sides = {"height": settings["image_size"], "width": settings["image_size"]} if "image_size" in settings else None
    kept = {name: settings[name] for name in PICTURE_SETTINGS if name in settings}
    pictures = JanusImageProcessorPil(**kept, **({"size": sides} if sides else {}))
    form = _json(folder / "processor_config.json", {}).get("sft_format", "deepseek")
    if form != "deepseek":
        raise UserError(
            f"policy {folder}: sft_format={form!r} of processor_config.json; Janus's prompts have `deepseek`."
        )
    return JanusProcessor(
        pictures,
        read_tokenizer(folder),
        chat_template=tiny.CHAT_TEMPLATE,
        use_default_system_prompt=True,
        num_image_tokens=num_image_tokens,
    )


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read tokenizer.json as it stands.

    Not through `AutoTokenizer`: the class that DeepSeek's files name, Llama's, would replace the pre-tokenizer by its own.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(f"policy {folder} has no tokenizer.json. Copy it from the checkpoint it was trained from.")
    config = _json(folder / "tokenizer_config.json", {})
    said = config | _json(folder / "special_tokens_map.json", {})
    special = {name: _content(said.get(name)) or usual for name, usual in SPECIAL.items()}
    try:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(file),
            padding_side="left",
            model_max_length=config.get("model_max_length", 16_384),
            extra_special_tokens=IMAGE_TOKENS,
            **special,
        )
    except Exception as error:  # tokenizers raises bare Exceptions
        raise UserError(
            f"policy {folder}: tokenizer.json cannot be read ({' '.join(str(error).split())[:200]})."
        ) from error
    return tokenizer


def _read_files(folder: Path) -> dict[str, Tensor]:
    name = next((name for name in WEIGHTS if (folder / name).is_file()), None)
    if name is None:
        raise UserError(f"policy {folder} holds none of {', '.join(WEIGHTS)}. Copy or download the weights.")
    files = [name]
    if name.endswith(".index.json"):
        index = _json(folder / name).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise UserError(
                f"{folder / name} has no weight_map, which says which file holds what. Copy or download it again."
            )
        files = sorted(set(index.values()))
        if missing := [file for file in files if not (folder / file).is_file()]:
            raise UserError(f"policy {folder} lacks {missing[0]}, which {name} lists. Copy or download it again.")
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= _read_file(folder / file)
    return weights


def _read_file(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        read = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(read, dict) or not all(isinstance(weight, Tensor) for weight in read.values()):
            raise ValueError("it holds something else than named weights")
        return read
    except Exception as error:  # of many classes, among them the one by which weights_only refuses pickled code
        line = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"{file} cannot be read ({line}). Copy or download it again.") from error


def _json(file: Path, default: JsonObject | None = None) -> JsonObject:
    if not file.is_file():
        if default is not None:
            return default
        raise UserError(f"{file} is missing. Copy it from the checkpoint it was trained from.")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{file} cannot be read ({error}). Copy it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} holds no JSON object. Copy it again.")
    return value


def _content(token: JsonObject | str | None) -> str | None:
    """Read a special token's text, which may be an added token's settings."""
    return token.get("content") if isinstance(token, dict) else token
