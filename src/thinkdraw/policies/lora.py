"""Low-rank adapters on the language model, and the full weights that they amount to."""

from typing import Any

from pydantic import Field
from torch import Tensor, nn

from thinkdraw.config import StrictModel


class LoraSettings(StrictModel):
    """Hu et al. 2021 (arXiv 2106.09685). The adapters are the only trained weights; switched off they are the reference."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32.0, gt=0, description="The update is scaled by alpha / rank.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Above 0, likelihoods in training differ from the sampler's.")
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Linear layers of the language model that get an adapter.",
    )


def add_lora(model: nn.Module, settings: LoraSettings) -> Any:
    """Put adapters into `model` in place; returns the peft model that switches them."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=rf".*language_model\..*\.({'|'.join(settings.targets)})",
    )
    return get_peft_model(model, config)


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with every adapter added to its layer and no trace of peft in the names; `model` stays as it is."""
    from peft.tuners.lora import LoraLayer

    weights = {n.replace(".base_layer.", "."): w for n, w in model.state_dict().items() if ".lora_" not in n}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            base = weights[f"{name}.weight"]
            weights[f"{name}.weight"] = base + module.get_delta_weight("default").to(base.dtype)
    return weights
