"""Which judge exactly: a short hash of a reward's name, settings and weights, so that verdicts of two are never mixed."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from torch import nn

import thinkdraw
from thinkdraw.types import Reward

_PLACES = 4096  # looked at in each tensor, as a policy's revision does: fine-tuning moves all of them
_DEPTH = 8


def revision_of(reward: Reward, settings: dict[str, Any]) -> str:
    """12 hex digits. settings: what the reward was made with.

    Weights are found in the reward's attributes, and in theirs; so is a `revision` that one of them has, for a judge
    that is not in this process.
    """
    said = [reward.name, type(reward).__qualname__, settings, thinkdraw.__version__]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode())
    for path, found in _weights_and_revisions(reward, "", _DEPTH, set()):
        digest.update(path.encode())
        if isinstance(found, str):
            digest.update(found.encode())
            continue
        for name, tensor in sorted(found.state_dict().items()):
            flat = tensor.flatten()
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(flat[:: max(1, len(flat) // _PLACES)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _weights_and_revisions(value: Any, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, nn.Module | str]]:
    """Modules, each once, and texts called `revision` that are in `value`, and where they were found."""
    if path.endswith(".revision") and isinstance(value, str):
        yield path, value
    if id(value) in seen or depth == 0 or isinstance(value, type):
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        yield path, value
        return
    if isinstance(value, dict):
        inside = {str(key): part for key, part in value.items()}
    elif isinstance(value, list | tuple):
        inside = {str(index): part for index, part in enumerate(value)}
    else:
        inside = getattr(value, "__dict__", {})
    for name, part in sorted(inside.items()):
        yield from _weights_and_revisions(part, f"{path}.{name}", depth - 1, seen)
