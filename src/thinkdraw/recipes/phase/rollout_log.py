"""`rollouts/step_000010.parquet`: a few groups of a phase, for the report."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor

from thinkdraw.images import to_png
from thinkdraw.rollouts.readable import readable_segments
from thinkdraw.runtime.files import atomic_file
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Policy, Rollouts


def write_rollouts(
    path: Path,
    step: int,
    rollouts: Rollouts,
    rewards: Tensor,
    advantages: Tensor,
    components: dict[str, Tensor],
    num_groups: int,
    policy: Policy | None = None,
) -> None:
    """Write the first `num_groups` groups to a parquet file.

    rewards, advantages and each component (part of the reward): (B,); NaN becomes null.
    policy: needed for rollouts of several segments, to detokenise their texts and decode their pictures.
    """
    rows: list[JsonObject] = []
    assert rollouts.pictures is not None
    schema = SCHEMA.append(SEGMENTS) if rollouts.segments else SCHEMA
    if rollouts.segments and policy is None:
        raise ValueError(
            "rollouts of several segments need the policy that detokenises their texts and decodes their pictures: pass it."
        )
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
        if rollouts.segments and policy is not None:
            rows[-1]["segments"] = [
                {"kind": s.kind, "text": s.text, "png": None if s.picture is None else to_png(s.picture)}
                for s in readable_segments(rollouts, i, policy)
            ]
    with atomic_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), temporary, write_page_checksum=True)


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
# A column only in files of rollouts that describe their segments: older files stay readable.
SEGMENTS = pa.field(
    "segments", pa.list_(pa.struct([("kind", pa.string()), ("text", pa.string()), ("png", pa.binary())]))
)


def _number(value: Tensor) -> float | None:
    """Convert a scalar for JSON: null for NaN and infinity."""
    number = float(value)
    return number if math.isfinite(number) else None
