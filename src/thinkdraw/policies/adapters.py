"""LoRA adapters as folders in peft's layout.

They are written beside a checkpoint, and merged into the base of a policy named BASE+ADAPTER.
"""

import json
from pathlib import Path

from safetensors.torch import save_file
from transformers import PreTrainedModel

from thinkdraw.errors import UserError
from thinkdraw.policies.lora import merged_weights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def write_adapters(model: PreTrainedModel, directory: Path) -> None:
    """Write a model's adapters as `PeftModel.from_pretrained` opens them."""
    from peft import get_peft_model_state_dict

    directory.mkdir(parents=True, exist_ok=True)
    settings = model.peft_config["default"].to_dict()  # pyright: ignore[reportAttributeAccessIssue, reportIndexIssue]
    # inference_mode is how peft marks what it saves. JSON has no sets, so they become lists.
    settings = {name: sorted(value) if isinstance(value, set) else value for name, value in settings.items()}
    (directory / CONFIG).write_text(json.dumps(settings | {"inference_mode": True}, indent=2, default=str) + "\n")
    weights = get_peft_model_state_dict(model)
    save_file({f"base_model.model.{n}": w.detach().cpu().contiguous() for n, w in weights.items()}, directory / WEIGHTS)


def merge_adapters(model: PreTrainedModel, folder: str) -> None:
    """Merge a folder's adapters into the model's weights, in place.

    Raises UserError for adapters of another model.
    """
    if not Path(folder, CONFIG).is_file():
        raise UserError(
            f"adapters {folder} have no {CONFIG}. Give the folder that peft or a LoRA run wrote, BASE+ADAPTER."
        )
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    before = {name: weight.shape for name, weight in model.state_dict().items()}
    try:
        wrapped = PeftModel.from_pretrained(model, folder, is_trainable=False)
    except (ValueError, RuntimeError, KeyError, OSError) as error:
        line = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(
            f"adapters {folder} do not fit this base ({line}). Name the base that they were trained on."
        ) from error
    if not any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise UserError(f"adapters {folder} fit no layer of this base. Name the base that they were trained on.")
    merged = merged_weights(model)
    wrapped.unload()
    if {name: weight.shape for name, weight in model.state_dict().items()} != before:
        raise UserError(
            f"adapters {folder} hold more than LoRA weights. Merge them into the base with peft, and give that."
        )
    model.load_state_dict(merged)
    model.requires_grad_(True)  # peft freezes what it wraps, and these weights may be trained
