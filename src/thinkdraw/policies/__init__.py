"""Trainable generators behind one protocol (`types.Policy`). A model family is one entry here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thinkdraw.errors import UserError

if TYPE_CHECKING:
    from thinkdraw.policies.janus.policy import JanusPolicy
    from thinkdraw.policies.lora import LoraSettings

# config.model_type → the class; a string, so that transformers is imported when a policy is loaded and not before.
POLICIES = {"janus": "thinkdraw.policies.janus.policy:JanusPolicy"}


def load_policy(
    path: Path | str, *, device: str = "cpu", dtype: str = "fp32", lora: LoraSettings | None = None, **options: Any
) -> JanusPolicy:
    """The policy in a checkpoint folder or under a Hugging Face model id, chosen by its `config.model_type`.

    dtype: of the weights, fp32 or bf16. options: what the family's class takes, see `JanusPolicy`. Raises UserError.
    """
    from thinkdraw.policies.janus.loading import model_type_of

    model_type = model_type_of(str(path))
    if model_type not in POLICIES:
        raise UserError(
            f"policy {path} has model_type={model_type}, which is not one that draws: {', '.join(POLICIES)}. "
            "Give a checkpoint of one of these families."
        )
    module, name = POLICIES[model_type].split(":")
    return getattr(import_module(module), name).load(str(path), device=device, dtype=dtype, lora=lora, **options)
