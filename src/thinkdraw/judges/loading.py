"""Reads a judge's published files; whatever is wrong is one line at the start."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file
from transformers.utils.logging import disable_progress_bar

from thinkdraw.errors import UserError
from thinkdraw.runtime.checkpoint import refuse_incomplete


def one_line(error: BaseException) -> str:
    """Shorten an error's text to the middle of a sentence."""
    return " ".join(str(error).split())[:200].rstrip(".")


def read_model(path: str, model_classes: Mapping[str, type[PreTrainedModel]]) -> Any:
    """Read the model at `path` in fp32, in eval mode, without gradients.

    path: a folder with config.json, or a Hugging Face model id. model_classes: by the config's model_type.
    Raises UserError for a checkpoint that is absent, of another type, damaged or lacks weights.
    """
    names = " or ".join(model_class.__name__ for model_class in model_classes.values())
    folder = Path(path)
    refuse_incomplete(f"judge {path}")
    looks_local = folder.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1
    if not (folder / "config.json").is_file() and (folder.is_dir() or looks_local):
        raise UserError(f"judge {path} has no config.json. Give the folder of a {names} or a Hugging Face model id.")
    try:
        model_type = PreTrainedConfig.get_config_dict(path)[0].get("model_type", "none")
        if model_type not in model_classes:
            known = " or ".join(model_classes)
            raise UserError(f"judge {path} has model_type={model_type}, not {known}. Give the folder of a {names}.")
        return _load_complete(path, model_classes[model_type], path)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(f"judge {path} cannot be read ({one_line(error)}). Copy or download it again.") from error


def fill_model(
    path: str, model_class: type[PreTrainedModel], config: PreTrainedConfig, weights: dict[str, Tensor], **options: Any
) -> Any:
    """Make a model of weights that were read from the file `path`.

    weights: under the names of `model_class`. Otherwise as `read_model`.
    """
    try:
        return _load_complete(path, model_class, None, config=config, state_dict=weights, **options)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"judge {path}: its weights do not fit together ({one_line(error)}).") from error


def _load_complete(path: str, model_class: type[PreTrainedModel], source: str | None, **options: Any) -> Any:
    """Load a model that lacks no weight: transformers would fill in random ones."""
    disable_progress_bar()
    loaded: Any = model_class.from_pretrained(
        source, dtype=torch.float32, output_loading_info=True, trust_remote_code=False, **options
    )
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise UserError(f"judge {path} lacks {len(missing)} weights, {missing[0]} first. Copy or download it again.")
    return model.eval().requires_grad_(False)


def find_file(path: str, name: str) -> Path:
    """Return the file at `path`, or the file `name` in that folder or model.

    path: a file, a folder or a Hugging Face model id.
    """
    if Path(path).is_file():
        return Path(path)
    try:
        return Path(str(cached_file(path, name)))
    except (OSError, ValueError) as error:
        raise UserError(
            f"judge {path} has no {name} ({one_line(error)}). Give that file, its folder or a Hugging Face model with it."
        ) from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read named tensors from a .safetensors file or one of torch's format.

    In torch's format they may be under "state_dict". No code of the file is run: what is not a tensor or a plain
    container is refused.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can raise any error of the zip and torch readers
        raise UserError(f"judge {file} cannot be read ({one_line(error)}). Copy or download it again.") from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(w, Tensor) for w in weights.values()):
        raise UserError(f"judge {file} holds {type(content).__name__}, not named weights. Give the published file.")
    return weights


def count_blocks(weights: Mapping[str, Tensor], prefix: str) -> int:
    """Count the blocks named `{prefix}.0.…`, `{prefix}.1.…`.

    A block that lost some weights counts, so that loading will notice what is missing.
    """
    numbered = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(match[1]) for match in map(numbered.match, weights) if match), default=-1)


def read_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Read the tokenizer of a folder or Hugging Face model id.

    Raises UserError where it is absent or knows no words.
    """
    refuse_incomplete(f"judge {path}")
    no_words = UserError(f"judge {path}: its tokenizer knows no words. Put tokenizer.json beside config.json.")
    if Path(path).is_dir() and not any(any(Path(path).glob(name)) for name in ("tokenizer*", "vocab*", "*.model")):
        raise no_words
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"judge {path}: tokenizer or image processor cannot be read ({one_line(error)}).") from error
    if set(tokenizer("a red circle").input_ids) <= set(tokenizer.all_special_ids):
        # transformers makes up an empty tokenizer where there are no files; every text would then read the same.
        raise no_words
    return tokenizer


def read_image_processor(path: str, processor_class: Any) -> Any:
    """Read the image processor of a folder or model id as `processor_class`.

    The class is the PIL one, whatever else is installed, so that numbers do not depend on it.
    """
    try:
        return processor_class.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"judge {path}: tokenizer or image processor cannot be read ({one_line(error)}).") from error


def digest(name: str, *models: torch.nn.Module) -> str:
    """Hash a name and all weights of models to 12 hex digits."""
    sha256 = hashlib.sha256(name.encode())
    for model in models:
        for key, weight in sorted(model.state_dict().items()):
            sha256.update(f"{key} {weight.dtype} {tuple(weight.shape)}".encode())
            sha256.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()[:12]
