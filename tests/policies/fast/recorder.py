"""A CUDA graph without a GPU: operations are noted, not done, and done again on the same memory when they are replayed.

As on a GPU, numbers of the interpreter stay what they were when the step was recorded, and looking at a tensor is an error.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

LOOKS = {"_local_scalar_dense", "nonzero", "equal", "unique_dim", "_unique2", "masked_select", "item"}


class _Recording(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], tuple, dict, list[Any]]] = []
        self.overwritten: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, kwargs = function._schema.name.split("::")[1], kwargs or {}
        indexed = args[1] if name.startswith("index") and len(args) > 1 and isinstance(args[1], list | tuple) else []
        if name in LOOKS or any(isinstance(i, Tensor) and i.dtype == torch.bool for i in indexed):
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        for argument, value in zip(function._schema.arguments, args):
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.overwritten.append((value, value.clone()))
        result = function(*args, **kwargs)
        self.operations.append((function, args, kwargs, tree_flatten(result)[0]))
        return result


def record(step: Callable[[], None]) -> Callable[[], None]:
    with _Recording() as recording:
        step()
    for tensor, before in reversed(recording.overwritten):
        tensor.copy_(before)

    def replay() -> None:
        for function, args, kwargs, results in recording.operations:
            for result, again in zip(results, tree_flatten(function(*args, **kwargs))[0]):
                if isinstance(result, Tensor) and result.data_ptr() != again.data_ptr():
                    result.copy_(again)

    return replay
