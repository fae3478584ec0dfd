"""Reading and writing Janus folders, with one-line errors."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import JanusConfig, JanusForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

from thinkdraw.errors import UserError
from thinkdraw.policies import ADAPTER_FOLDER, model_type_of, speed
from thinkdraw.policies.adapters import write_adapters
from thinkdraw.policies.janus.deepseek import reading, writing
from thinkdraw.policies.lora import merged_weights
from thinkdraw.runtime.files import atomic_directory

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def is_deepseek(path: str) -> bool:
    """Tell DeepSeek's layout of a checkpoint from transformers'."""
    return model_type_of(path) == "multi_modality"


def read_config(path: str) -> JanusConfig:
    """Read the sizes of a checkpoint, and none of its weights."""
    return reading.read_config(path) if is_deepseek(path) else JanusConfig.from_pretrained(path)


def read_model(path: str, dtype: str) -> JanusForConditionalGeneration:
    """Read transformers' Janus with every weight present, in eval mode on the CPU.

    Raises UserError.
    """
    disable_progress_bar()  # it lasts a second, and would hide the lines that matter
    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype} is unknown. Use one of {', '.join(DTYPES)}.")
    source: dict[str, Any] = {"pretrained_model_name_or_path": path}
    if is_deepseek(path):
        config, weights = reading.read_weights(reading.folder_of(path))
        source = {"pretrained_model_name_or_path": None, "config": config, "state_dict": weights}
    try:
        loaded: Any = JanusForConditionalGeneration.from_pretrained(
            **source,
            dtype=DTYPES[dtype],
            attn_implementation="sdpa",
            output_loading_info=True,
            trust_remote_code=False,
        )
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(
            f"policy {path}: the weights cannot be read ({_line(error)}). Copy or download them again."
        ) from error
    model, loading_info = loaded
    if missing := sorted(loading_info["missing_keys"]):
        raise UserError(f"policy {path} lacks {len(missing)} weights, {missing[0]} first. Copy or download it again.")
    if is_deepseek(path) and (unknown := sorted(loading_info["unexpected_keys"])):
        raise UserError(f"policy {path} has {len(unknown)} weights that are none of Janus's, {unknown[0]} first.")
    speed.prepare_learning(model)
    return model.eval()


def read_processor(path: str, num_image_tokens: int) -> Any:
    """Read the processor, with the PIL image processor whatever else is installed.

    The backends of image processors resize differently. Raises UserError.
    """
    from transformers import AutoTokenizer, JanusProcessor
    from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

    if is_deepseek(path):
        return reading.read_processor(reading.folder_of(path), num_image_tokens)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        image_processor = JanusImageProcessorPil.from_pretrained(path, trust_remote_code=False)
        settings = JanusProcessor.get_processor_dict(path)[0]
    except (OSError, ValueError) as error:
        raise UserError(f"policy {path}: tokenizer or image processor cannot be read ({_line(error)}).") from error
    for name in ("boi_token", "eoi_token", "image_token", "bos_token", "eos_token", "pad_token"):
        if getattr(tokenizer, name, None) is None:
            raise UserError(f"policy {path}: its tokenizer names no {name}. Add it to tokenizer_config.json.")
    return JanusProcessor(
        image_processor,
        tokenizer,
        chat_template=tokenizer.chat_template,
        use_default_system_prompt=bool(settings.get("use_default_system_prompt", False)),
        num_image_tokens=num_image_tokens,
    )


def write_deepseek(policy: Any, directory: Path) -> None:
    """Write a Janus in DeepSeek's layout, with adapters merged.

    Raises UserError for a policy of another family.
    """
    model = getattr(policy, "model", None)
    if not isinstance(model, JanusForConditionalGeneration):
        raise UserError(
            f"to=deepseek: {type(policy).__name__} is no Janus, and the layout is Janus's alone. Use to=hf."
        )
    writing.write_checkpoint(model, merged_weights(model), policy.processor, directory)


def write_checkpoint(model: JanusForConditionalGeneration, processor: Any, directory: Path) -> None:
    """Write a folder that plain transformers loads, with adapters merged."""
    with atomic_directory(directory) as folder:
        model.save_pretrained(folder, state_dict=merged_weights(model))
        processor.save_pretrained(folder)
        if any(".lora_" in name for name, _ in model.named_parameters()):
            write_adapters(model, folder / ADAPTER_FOLDER)


def _line(error: Exception) -> str:
    """Shorten an error's text to one line."""
    return " ".join(str(error).split())[:200].rstrip(".")
