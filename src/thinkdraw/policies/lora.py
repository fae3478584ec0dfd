"""Low-rank adapters on the language model, and the full weights that they amount to."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from thinkdraw.config import StrictModel


class LoraSettings(StrictModel):
    """Hu et al. 2021 (arXiv 2106.09685). Only the adapters are trained; switched off they leave the reference."""

    rank: int = Field(16, ge=1, description="Rank of the adapters. Higher can learn more, and needs more memory.")
    alpha: float = Field(
        32.0, gt=0, description="Size of the adapters' effect: what they add is scaled by alpha / rank."
    )
    dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the adapters' inputs set to 0 in training. Above 0, likelihoods in training differ "
        "from the sampler's.",
    )
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        description="Names of the language model's linear layers that get an adapter.",
    )


def add_lora(model: PreTrainedModel, settings: LoraSettings) -> Any:
    """Put adapters into `model` in place; returns the peft model that switches them."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]  peft takes floats too
        lora_dropout=settings.dropout,
        target_modules=rf".*language_model\..*\.({'|'.join(settings.targets)})",
    )
    return get_peft_model(model, config)


@contextmanager
def adapters_off(network: nn.Module) -> Iterator[None]:
    """Inside, the adapters in `network` add nothing."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@dataclass(frozen=True)
class Adapter:
    """What is added to a layer's output: up(down(x)) · scale."""

    down: nn.Linear
    up: nn.Linear
    scale: float


def active_adapter(layer: Any) -> Adapter | None:
    """The adapter of a layer of a model with adapters, None where it has none or they are switched off."""
    if not hasattr(layer, "lora_A") or layer.disable_adapters:
        return None
    return Adapter(layer.lora_A["default"], layer.lora_B["default"], layer.scaling["default"])


def learned_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """The network's weights, without adapters that have not learned yet and change nothing."""
    weights = dict(network.named_parameters())
    if not any(bool(p.detach().any()) for n, p in weights.items() if ".lora_B." in n):
        weights = {n: p for n, p in weights.items() if ".lora_" not in n}
    return weights


def merged_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The state dict with adapters added to their layers and peft's names undone; `model` stays as it is.

    What was added is on the CPU: of a model that fills a GPU there is room for one sum at a time.
    """
    from peft.tuners.lora import Linear

    weights = {n.replace(".base_layer.", "."): w for n, w in model.state_dict().items() if ".lora_" not in n}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            base = weights[f"{name}.weight"]
            weights[f"{name}.weight"] = (base + module.get_delta_weight("default").to(base.dtype)).cpu()
    return weights
