"""`rollouts/step_000010.parquet`: a few whole groups of a phase, for the report and for people."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from thinkdraw.images import to_png
from thinkdraw.runtime.files import atomic_file
from thinkdraw.types import Rollouts


def write_rollouts(
    path: Path,
    step: int,
    rollouts: Rollouts,
    rewards: Tensor,
    advantages: Tensor,
    components: dict[str, Tensor],
    num_groups: int,
) -> None:
    """The first `num_groups` groups. rewards, advantages and each component: (B,); NaN becomes null."""
    rows: list[dict[str, Any]] = []
    assert rollouts.pictures is not None
    for i in range(min(len(rollouts), num_groups * rollouts.group_size)):
        prompt = rollouts.prompts[i]
        rows.append(
            {
                "step": step,
                "prompt": prompt.text,
                "prompt_id": prompt.id,
                "tag": prompt.tag,
                "group": i // rollouts.group_size,
                "member": i % rollouts.group_size,
                "thought": rollouts.thoughts[i] if rollouts.thoughts else "",
                "reward": _number(rewards[i]),
                "advantage": _number(advantages[i]),
                "components": json.dumps({name: _number(values[i]) for name, values in components.items()}),
                "seed": int(rollouts.seeds[i]),
                "png": to_png(rollouts.pictures[i].cpu()),
            }
        )
    with atomic_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), temporary)


SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        *((n, pa.string()) for n in ("prompt", "prompt_id", "tag")),
        ("group", pa.int64()),
        ("member", pa.int64()),
        ("thought", pa.string()),
        ("reward", pa.float64()),
        ("advantage", pa.float64()),
        ("components", pa.string()),
        ("seed", pa.int64()),
        ("png", pa.binary()),
    ]
)


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
