"""What there is in a store, in one dict."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from thinkdraw.rollouts.files import DamagedError
from thinkdraw.rollouts.rows import Footer

if TYPE_CHECKING:
    from thinkdraw.rollouts.store import RolloutStore


def summary(store: RolloutStore) -> dict[str, Any]:
    """Counts, judges, revisions and sizes, from the shards' footers and the scores.

    content_hash: SHA-256 over the shards' digests in order; equal for two stores of the same rollouts, whenever and
    from whichever folder they were sampled. damaged: shards without a readable footer, which the rest leaves out.
    """
    footers = list(store.footers(skip_damaged=True))
    readable = {index for index, _ in footers}
    damaged = [f"{index:06d}" for index in range(store.num_shards) if index not in readable]
    content, revisions = hashlib.sha256(), Counter[str]()
    for _, footer in footers:
        content.update(footer.digest.encode())
        revisions[footer.revision] += footer.num_rows
    files = [*(store.path / "shards").glob("*.parquet"), *(store.path / "scores").glob("*/*.parquet")]
    samplings = {json.dumps(f.sampling, sort_keys=True): f.sampling for _, f in footers}
    return {
        "path": str(store.path),
        "rows": sum(f.num_rows for _, f in footers),
        "groups": sum(f.num_groups for _, f in footers),
        "group_sizes": sorted({f.group_size for _, f in footers}),
        "shards": len(footers),
        "damaged": damaged,
        "judges": {name: _judge(store, name, footers) for name in store.judges},
        "revisions": dict(revisions),
        "policies": sorted({f.policy for _, f in footers}),
        "sampling": list(samplings.values()),
        **store.header.model_dump(mode="json"),
        "bytes": sum(file.stat().st_size for file in files),
        "content_hash": content.hexdigest(),
    }


def _judge(store: RolloutStore, name: str, footers: list[tuple[int, Footer]]) -> dict[str, Any]:
    """scored, no_verdict: rows. mean: of the verdicts, None without any. damaged: files of scores."""
    column, scored, verdicts, total = store.column(name), 0, 0, 0.0
    damaged = []
    for index, footer in footers:
        try:
            found = column.read(index, footer)
        except DamagedError:
            damaged.append(f"{index:06d}")
            continue
        if found is not None:
            scored += len(found)
            verdicts += int((~np.isnan(found)).sum())
            total += float(np.nansum(found, dtype=np.float64))
    return {
        "scored": scored,
        "no_verdict": scored - verdicts,
        "mean": total / verdicts if verdicts else None,
        "damaged": damaged,
        **column.judge.model_dump(),
    }
