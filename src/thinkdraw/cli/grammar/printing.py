"""What verbs print: rows, stores and intervals, as tables or as JSON."""

import json
from pathlib import Path

from thinkdraw.runtime.json_types import JsonObject


def interval(row: JsonObject, key: str) -> str:
    """Write a score with its 95 % interval, or that there is no verdict."""
    if row[key] is None:
        return "no verdict"
    known = row["low"] is not None and row["high"] is not None
    return f"{row[key]:.3f} " + (f"[{row['low']:.3f}, {row['high']:.3f}]" if known else "[not known]")


def print_store(path: Path, as_json: bool) -> None:
    """Print what a rollout store holds."""
    from thinkdraw.rollouts import RolloutStore

    info = RolloutStore.open(path).info()
    if as_json:
        print(json.dumps(info, indent=2))
        return
    rows = [{"": name, "value": info[name]} for name in ("rows", "groups", "shards", "thought", "precision", "bytes")]
    rows += [{"": f"rows of revision {name}", "value": count} for name, count in info["revisions"].items()]
    for name, judge in info["judges"].items():
        mean = "" if judge["mean"] is None else f", mean {judge['mean']:.4f}"
        rows.append({"": name, "value": f"{judge['scored']} scored, {judge['no_verdict']} without verdict{mean}"})
        rows += [{"": name, "value": f"damaged scores {file}"} for file in judge["damaged"]]
    rows += [{"": "damaged shard", "value": name} for name in info["damaged"]]
    print_rows([{"": "store", "value": path}, *rows, {"": "content", "value": info["content_hash"]}], False)


def print_rows(rows: list[JsonObject], as_json: bool) -> None:
    """Print rows as a table, or as JSON for a program."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    from thinkdraw.console import print_rows

    print_rows(rows)
