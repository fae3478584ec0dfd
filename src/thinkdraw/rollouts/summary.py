"""The content of a store in one dict."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from thinkdraw.rollouts.files import DamagedError
from thinkdraw.rollouts.footer import Footer
from thinkdraw.rollouts.header import Header
from thinkdraw.rollouts.scores import ScoreColumn

Footers = list[tuple[int, Footer]]  # with each shard's index


def summary(
    path: Path, header: Header, footers: Footers, num_shards: int, columns: list[ScoreColumn]
) -> dict[str, Any]:
    """Count rows, judges, revisions and bytes, from readable footers and the scores.

    content_hash: SHA-256 over the shards' digests in order. Two stores of the same rollouts have the same hash,
        whenever and from whichever folder they were sampled.
    damaged: shards without a readable footer; the rest of the dict leaves them out.
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
        "judges": {column.name: _judge(column, footers) for column in columns},
        "revisions": dict(revisions),
        "policies": sorted({f.policy for _, f in footers}),
        "sampling": list(samplings.values()),
        **header.model_dump(mode="json"),
        "bytes": sum(file.lstat().st_size for file in files),
        "content_hash": content.hexdigest(),
    }


def _judge(column: ScoreColumn, footers: Footers) -> dict[str, Any]:
    """Count a judge's scores.

    scored, no_verdict: rows.
    mean: of the verdicts, None without any.
    damaged: files of scores that cannot be read.
    """
    scored, verdicts, total = 0, 0, 0.0
    damaged: list[str] = []
    for index, footer in footers:
        try:
            scores = column.read(index, footer)
        except DamagedError:
            damaged.append(f"{index:06d}")
            continue
        if scores is not None:
            scored += len(scores)
            verdicts += int((~np.isnan(scores)).sum())
            total += float(np.nansum(scores, dtype=np.float64))
    return {
        "scored": scored,
        "no_verdict": scored - verdicts,
        "mean": total / verdicts if verdicts else None,
        "damaged": damaged,
        **column.judge.model_dump(),
    }
