"""What there is in a store, in one dict."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from thinkdraw.rollouts.files import DamagedError
from thinkdraw.rollouts.header import Header
from thinkdraw.rollouts.rows import Footer
from thinkdraw.rollouts.scores import ScoreColumn


def summary(
    path: Path,
    header: Header,
    num_shards: int,
    footers: Sequence[tuple[int, Footer]],
    columns: Mapping[str, ScoreColumn],
) -> dict[str, object]:
    """Counts, judges, revisions and sizes, from the shards' footers and the scores.

    footers: (index, footer) of the shards that have a readable one. columns: judge → its scores.
    content_hash: SHA-256 over the shards' digests in order; equal for two stores of the same rollouts, whenever and
    from whichever folder they were sampled. damaged: shards without a readable footer, which the rest leaves out.
    """
    readable = {index for index, _ in footers}
    damaged = [f"{index:06d}" for index in range(num_shards) if index not in readable]
    content, revisions = hashlib.sha256(), Counter[str]()
    for _, footer in footers:
        content.update(footer.digest.encode())
        revisions[footer.revision] += footer.num_rows
    files = [*(path / "shards").glob("*.parquet"), *(path / "scores").glob("*/*.parquet")]
    samplings = {json.dumps(f.sampling, sort_keys=True): f.sampling for _, f in footers}
    return {
        "path": str(path),
        "rows": sum(f.num_rows for _, f in footers),
        "groups": sum(f.num_groups for _, f in footers),
        "group_sizes": sorted({f.group_size for _, f in footers}),
        "shards": len(footers),
        "damaged": damaged,
        "judges": {name: _judge(column, footers) for name, column in columns.items()},
        "revisions": dict(revisions),
        "policies": sorted({f.policy for _, f in footers}),
        "sampling": list(samplings.values()),
        **header.model_dump(mode="json"),
        "bytes": sum(file.stat().st_size for file in files),
        "content_hash": content.hexdigest(),
    }


def _judge(column: ScoreColumn, footers: Sequence[tuple[int, Footer]]) -> dict[str, object]:
    """scored, no_verdict: rows. mean: of the verdicts, None without any. damaged: files of scores."""
    scored, verdicts, total = 0, 0, 0.0
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
