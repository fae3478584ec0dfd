"""What stands behind a reward: its judges, and theirs, found in its attributes; and what those say of themselves."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from thinkdraw.types import Rollouts

_DEPTH = 8


def parts_of(
    value: Any,
    closed: Callable[[Any], bool] = lambda part: False,
    path: str = "",
    depth: int = _DEPTH,
    seen: set[int] | None = None,
) -> Iterator[tuple[str, Any]]:
    """(path, object) of the value and of what is in it, each once; not what is inside a module, nor rollouts it remembers,
    nor what is in a part that is `closed`."""
    seen = set() if seen is None else seen
    if id(value) in seen or depth == 0 or isinstance(value, type | Rollouts):
        return
    seen.add(id(value))
    yield path, value
    if isinstance(value, nn.Module) or closed(value):
        return
    if isinstance(value, dict):
        inside = {str(key): part for key, part in value.items()}
    elif isinstance(value, list | tuple):
        inside = {str(index): part for index, part in enumerate(value)}
    else:
        inside = getattr(value, "__dict__", {})
    for name, part in sorted(inside.items()):
        yield from parts_of(part, closed, f"{path}.{name}", depth - 1, seen)


def own_revision(part: Any) -> str | None:
    """What a part that is no module calls its revision; None where it has none."""
    found = None if isinstance(part, nn.Module) else getattr(part, "revision", None)
    return found if isinstance(found, str) and found else None


def complaints(reward: Any) -> str:
    """Why judges gave no verdicts so far, the two most frequent reasons of each with their counts; "" where none says.

    Judges count them as `failures`, the reward `http` as `problems`.
    """
    said = []
    for _, part in parts_of(getattr(reward, "call", reward)):
        for counted in (getattr(part, "problems", None), getattr(part, "failures", None)):
            if isinstance(counted, Counter) and counted:
                name = getattr(part, "name", type(part).__name__)
                reasons = (f"{' '.join(str(reason).split())} ({count})" for reason, count in counted.most_common(2))
                said.append(f"{name}: {', '.join(reasons)}")
    return "; ".join(said)
