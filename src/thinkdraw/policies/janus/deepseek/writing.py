"""Writes a policy in DeepSeek's layout, for the code that was built on it."""

import json
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import JanusForConditionalGeneration, JanusProcessor

from thinkdraw.policies.janus.deepseek import configs, names
from thinkdraw.runtime.files import atomic_directory
from thinkdraw.runtime.json_types import JsonObject


def write_checkpoint(
    model: JanusForConditionalGeneration, weights: dict[str, Tensor], processor: JanusProcessor, directory: Path
) -> None:
    """Write config, weights, tokenizer and processor files, whole or not at all.

    weights: of the model, adapters merged, under transformers' names. The tower's attention pool, which nothing reads, is
    not among them: DeepSeek's code says that it is newly initialised.
    """
    tokenizer, pictures = processor.tokenizer, processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]
    stacked = {name: weight.contiguous() for name, weight in names.to_deepseek(weights).items()}
    with atomic_directory(directory) as folder:
        save_torch_state_dict(stacked, folder, max_shard_size="5GB", shared_tensors_to_discard=[])
        dtype = str(model.dtype).removeprefix("torch.")
        _write(folder / "config.json", configs.to_deepseek(model.config, dtype))
        side = pictures.size["height"]
        _write(
            folder / "preprocessor_config.json",
            {
                "image_processor_type": "VLMImageProcessor",
                "processor_class": "VLChatProcessor",
                "image_size": side,
                "min_size": pictures.min_size,
                "image_mean": list(pictures.image_mean),
                "image_std": list(pictures.image_std),
                "rescale_factor": pictures.rescale_factor,
                "do_normalize": pictures.do_normalize,
                "background_color": list(pictures.background_color),
            },
        )
        _write(
            folder / "processor_config.json",
            {
                "processor_class": "VLChatProcessor",
                "image_tag": processor.image_token,
                "num_image_tokens": processor.num_image_tokens,
                "sft_format": "deepseek",
                "add_special_token": False,
                "mask_prompt": False,
                "ignore_id": -100,
            },
        )
        special = {name: getattr(tokenizer, name) for name in ("bos_token", "eos_token", "pad_token")}
        images = [processor.image_token, processor.image_start_token, processor.image_end_token]
        _write(folder / "special_tokens_map.json", {**special, "additional_special_tokens": images})
        _write(
            folder / "tokenizer_config.json",
            {
                **special,
                "add_bos_token": True,
                "add_eos_token": False,
                "clean_up_tokenization_spaces": False,
                "model_max_length": tokenizer.model_max_length,
                "tokenizer_class": "LlamaTokenizerFast",
            },
        )
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def _write(file: Path, value: JsonObject) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
