"""The language model's layers as `torch.compile` makes them, for learning: their many small operations become a few.

Sampling has its own loop and is left as it is; the kernels that learning has on a CPU (`layer.py`) stay out of what is compiled.
Compilers have given wrong gradients without a word (torch 2.13 on a CPU for the picture decoder under autocast, off by 95 %), so
what they made is compared with what it stands for, on one short batch. What is compiled anew for other passes later on (in
shards, without gradients, for a single row) is not compared.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration

from thinkdraw.errors import UserError
from thinkdraw.policies.janus import network
from thinkdraw.runtime.device import autocast

ROWS, TOKENS = 3, 24  # of the comparison
ALLOWED = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # of the norm; a wrong gradient is off by far more than rounding


def compile_layers(model: JanusForConditionalGeneration, precision: str) -> None:
    """Compile the layers of `model` in place: one program for all of them, made in about 15 s and kept on disk by torch.

    precision: of the forward pass, fp32 or bf16 autocast. Raises UserError where there is no compiler, where there is
    dropout, and where the compiled layers' states or gradients are not those of the layers as they were.
    """
    layers: Any = model.model.language_model.layers
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in layers.modules()):
        raise UserError(
            "compile_layers=true: with dropout, compiled layers cannot be compared with plain ones. Set lora.dropout=0, or "
            "compile_layers=false."
        )
    wanted = _states_and_gradients(model, precision)
    for layer in layers:
        layer.compile(dynamic=True)
    try:
        found = _states_and_gradients(model, precision)
    except (RuntimeError, OSError) as error:  # torch's compile errors are RuntimeErrors
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"compile_layers=true: torch.compile failed ({reason}). On a CPU it needs a C++ compiler such as g++; or set "
            "compile_layers=false."
        ) from error
    allowed = ALLOWED[torch.float32 if precision == "fp32" and model.dtype == torch.float32 else torch.bfloat16]
    for name, one in wanted.items():
        off, norm = float((one - found[name]).norm()), float(one.norm())
        if not off <= allowed * norm:  # both are 0 for the first half of an adapter that has not learned yet
            raise UserError(
                f"compile_layers=true: {name} of the compiled layers are off by {off:.2g}, more than {allowed:g} of their "
                f"norm {norm:.2g}. torch {torch.__version__} compiles them wrongly here: set compile_layers=false."
            )


def _states_and_gradients(model: JanusForConditionalGeneration, precision: str) -> dict[str, Tensor]:
    """Hidden states of noise, float32; where weights are trained, gradients with respect to it and to the first layer's."""
    language_model: Any = model.model.language_model
    weight = model.lm_head.weight
    generator = torch.Generator().manual_seed(0)
    shape = (2, ROWS, TOKENS, weight.shape[1])
    noise, direction = torch.randn(shape, generator=generator).to(weight.device, weight.dtype)
    trained = {n: p for n, p in language_model.layers[0].named_parameters() if p.requires_grad}
    noise = (noise * language_model.embed_tokens.weight.std()).detach().requires_grad_(bool(trained))
    was_training = language_model.training
    language_model.train(bool(trained))  # checkpointing is only there
    try:
        with torch.set_grad_enabled(bool(trained)), autocast(weight.device, precision):
            hidden = network.hidden_states(model, noise).float()
            gradients = torch.autograd.grad((hidden * direction).sum(), [noise, *trained.values()]) if trained else []
    finally:
        language_model.train(was_training)
    found = zip(("the states' gradients", *(f"gradients of {name}" for name in trained)), gradients)
    return {"states": hidden.detach()} | {name: gradient.float() for name, gradient in found}
