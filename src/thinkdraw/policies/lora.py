"""Low-rank adapters on the language model, and how to merge them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel

from thinkdraw.config import StrictModel


class LoraSettings(StrictModel):
    """Low-rank adapters, Hu et al. 2021 (arXiv 2106.09685).

    Only the adapters are trained. With adapters off, the model is the reference.
    """

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
    """Put adapters into `model` in place, and return peft's model of it."""
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
    """Switch off the adapters in `network` inside the `with` block."""
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
    """Return a layer's adapter; None where it has none or adapters are off."""
    if not hasattr(layer, "lora_A") or layer.disable_adapters:
        return None
    return Adapter(layer.lora_A["default"], layer.lora_B["default"], layer.scaling["default"])


def learned_weights(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the network's weights, without adapters that have not learned yet.

    An adapter's update is up(down(x)), and peft starts `up` (lora_B) at zero. While every `up` is zero, adapters
    change nothing.
    """
    weights = dict(network.named_parameters())
    if not any(bool(p.detach().any()) for n, p in weights.items() if ".lora_B." in n):
        weights = {n: p for n, p in weights.items() if ".lora_" not in n}
    return weights


def merged_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the state dict with adapters merged into their layers.

    peft's names are undone, and `model` stays as it is. Merged weights are on the CPU, because a model that fills a
    GPU leaves space for one sum at a time.
    """
    from peft.tuners.lora import Linear

    weights = {n.replace(".base_layer.", "."): w for n, w in model.state_dict().items() if ".lora_" not in n}
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            base = weights[f"{name}.weight"]
            weights[f"{name}.weight"] = (base + module.get_delta_weight("default").to(base.dtype)).cpu()
    return weights
