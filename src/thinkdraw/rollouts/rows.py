"""Rollouts to the rows of a shard and back, without loss.

Padding is not written; reading restores it.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinkdraw.data.prompt_files import prompt_of, row_of
from thinkdraw.rollouts import arrow
from thinkdraw.rollouts.footer import Footer
from thinkdraw.types import AllowedTokens, Context, Prompt, Rollouts, Sampling, Segment
from thinkdraw.types.segments import as_ints

SCHEMA = {
    "row": "int64",  # counted over the whole store, as `group` is
    "group": "int64",
    "member": "int32",
    **dict.fromkeys(("prompt", "prompt_id", "tag", "structure", "thought"), "string"),
    "prompt_ids": "list<uint32>",  # the context before the first token
    "draw_ids": "list<uint32>",  # the fresh context of a `rewrite` picture, else empty
    "tokens": "list<uint32>",  # texts and pictures on one axis
    "segment_lengths": "list<uint32>",
    "segment_is_image": "list<bool>",
    "mask": "list<bool>",
    "log_probs": "list<float>",
    "image_tokens": "list<uint16>",  # the last picture again, for readers that want only that
    "kept_counts": "list<uint32>",  # empty where nothing was cut
    "kept_indices": "list<uint32>",
    "seed": "int64",
    "sampling": "string",
    "revision": "string",
    "policy": "string",
    "time": "time",
}
# Only in shards whose rollouts describe their segments. There all fresh contexts are in these columns, not in draw_ids.
SEGMENTS = {
    "segment_is_shown": "list<bool>",
    "segment_picture": "list<int32>",
    "segment_context": "list<uint32>",
    "fresh_lengths": "list<uint32>",
    "fresh_ids": "list<uint32>",
}
NOT_CONTENT = ("policy", "time")  # where and when a row was sampled, so not part of the digest


def schema_of(names: list[str]) -> dict[str, str]:
    """Select the schema of a shard with columns of these names."""
    return SCHEMA | (SEGMENTS if SEGMENTS.keys() <= set(names) else {})


def to_table(rollouts: Rollouts, pad_id: int, policy: str) -> tuple[arrow.Table, Footer]:
    """Convert rollouts, without pictures, to a table and footer that begin at row 0.

    `with_position` moves them to their position in a store. Raises ValueError for padding that is not on the right.
    """
    rollouts = rollouts.to("cpu")
    size, settings = len(rollouts), rollouts.sampling.model_dump(mode="json")
    valid, last = rollouts.segment >= 0, rollouts.in_last_picture()
    allowed = rollouts.allowed
    structures = {
        key: _structure(p) for key, p in {id(p): p for p in rollouts.prompts}.items()
    }  # a group shares its prompt object
    columns: dict[str, Any] = {
        "row": np.arange(size),
        "group": np.arange(size) // rollouts.group_size,
        "member": np.arange(size) % rollouts.group_size,
        "prompt": [p.text for p in rollouts.prompts],
        "prompt_id": [p.id for p in rollouts.prompts],
        "tag": [p.tag for p in rollouts.prompts],
        "structure": [structures[id(p)] for p in rollouts.prompts],
        "thought": rollouts.thoughts or ("",) * size,
        "prompt_ids": arrow.to_lists(rollouts.prompt_ids, rollouts.prompt_mask),
        "tokens": arrow.to_lists(rollouts.tokens, valid),
        "mask": arrow.to_lists(rollouts.mask, valid),
        "log_probs": arrow.to_lists(rollouts.log_probs, valid),
        "image_tokens": arrow.split_lists(rollouts.tokens[last].numpy(), last.sum(1).numpy()),
        "kept_counts": _empty_lists(size) if allowed is None else arrow.to_lists(allowed.counts, valid),
        "kept_indices": _empty_lists(size)
        if allowed is None
        else arrow.split_lists(allowed.indices.numpy(), allowed.counts.sum(1).numpy()),
        "seed": rollouts.seeds.numpy(),
        "sampling": [json.dumps(settings)] * size,
        "revision": [rollouts.revision] * size,
        "policy": [policy] * size,
        "time": np.full(size, np.datetime64(time.time_ns() // 1_000_000, "ms")),
    }
    columns |= _segment_columns(rollouts)
    widths = [rollouts.tokens.shape[1], *(context.ids.shape[1] for context in rollouts.contexts)]
    footer = Footer(
        first_row=0, num_rows=size, first_group=0, group_size=rollouts.group_size,
        widths=tuple(widths if rollouts.segments else [*widths, 0][:3]), pad_id=pad_id,
        has_kept=allowed is not None, has_thoughts=bool(rollouts.thoughts), sampling=settings,
        revision=rollouts.revision, policy=policy,
    )  # fmt: skip
    return arrow.table(columns, schema_of(list(columns))), footer


def with_position(table: arrow.Table, footer: Footer, first_row: int, first_group: int) -> arrow.Table:
    """Write the position in the store, and the footer, into a table of `to_table`."""
    footer = dataclasses.replace(footer, first_row=first_row, first_group=first_group)
    for name, values in (
        ("row", first_row + np.arange(footer.num_rows)),
        ("group", first_group + np.arange(footer.num_rows) // footer.group_size),
    ):
        table = arrow.with_column(table, name, values, SCHEMA[name])
    return arrow.with_metadata(table, dataclasses.replace(footer, digest=digest(table, footer)).metadata())


def to_rollouts(table: arrow.Table, footer: Footer) -> Rollouts:
    """Convert a table back to rollouts, on the CPU and without pictures."""
    width, prompt_width = footer.widths[:2]
    tokens, valid = arrow.to_padded(table["tokens"], width, 0, torch.int64)
    prompt_ids, prompt_mask = arrow.to_padded(table["prompt_ids"], prompt_width, footer.pad_id, torch.int64)
    allowed = None
    if footer.has_kept:
        indices = torch.as_tensor(arrow.values(table["kept_indices"]).astype(np.int32))
        allowed = AllowedTokens(indices, arrow.to_padded(table["kept_counts"], width, 0, torch.int32)[0])
    texts = (table[name].to_pylist() for name in ("prompt", "prompt_id", "tag", "structure"))
    by_text: dict[tuple[str, ...], Prompt] = {}  # so that a group shares its prompt object again
    prompts = tuple(by_text.get(row) or by_text.setdefault(row, _prompt(*row)) for row in zip(*texts))
    return Rollouts(
        prompts=prompts, prompt_ids=prompt_ids, prompt_mask=prompt_mask, tokens=tokens,
        mask=arrow.to_padded(table["mask"], width, False, torch.bool)[0],
        log_probs=arrow.to_padded(table["log_probs"], width, 0, torch.float32)[0],
        seeds=torch.as_tensor(table["seed"].to_numpy().copy()), sampling=Sampling.model_validate(footer.sampling),
        group_size=footer.group_size, revision=footer.revision, fresh_contexts=_fresh(table, footer), allowed=allowed,
        thoughts=tuple(table["thought"].to_pylist()) if footer.has_thoughts else (), **_segments(table, valid),
    )  # fmt: skip


def digest(table: arrow.Table, footer: Footer) -> str:
    """Hash (SHA-256) the values of a table, independent of the file format."""
    common = dataclasses.asdict(dataclasses.replace(footer, digest="", policy=""))
    content = hashlib.sha256(json.dumps(common, sort_keys=True).encode())
    for name, kind in schema_of(table.column_names).items():
        if name in NOT_CONTENT:
            continue
        column = table[name]
        if kind == "string":
            content.update(json.dumps(column.to_pylist()).encode())
        elif kind.startswith("list<"):
            content.update(arrow.lengths(column).astype("<i8").tobytes() + arrow.values(column).tobytes())
        else:
            content.update(column.to_numpy().tobytes())
    return content.hexdigest()


def _segment_columns(rollouts: Rollouts) -> Mapping[str, Any]:
    """Make the columns of segments and fresh contexts.

    Length and kind of a segment are always written. The columns SEGMENTS follow where the rollouts describe them.
    """
    segment, fresh = rollouts.segment, rollouts.fresh_contexts
    counts = [len(row) for row in rollouts.segments] or [last + 1 for last in as_ints(segment.amax(1))]
    in_segment = [segment == s for s in range(max(counts, default=0))]
    lengths = torch.stack([tokens.sum(1) for tokens in in_segment], 1)
    is_image = torch.stack([(rollouts.is_image & tokens).any(1) for tokens in in_segment], 1)
    exists = torch.arange(len(in_segment)) < torch.tensor(counts)[:, None]
    columns = {"segment_lengths": arrow.to_lists(lengths, exists)}
    if not rollouts.segments:
        draw_ids = arrow.to_lists(fresh[0].ids, fresh[0].mask) if fresh else _empty_lists(len(rollouts))
        return columns | {"segment_is_image": arrow.to_lists(is_image, exists), "draw_ids": draw_ids}
    for context in fresh:
        arrow.check_padding(context.mask)
    ids, mask = (torch.cat(parts, 1) for parts in ([c.ids for c in fresh], [c.mask for c in fresh])) if fresh else (
        torch.zeros(len(rollouts), 0), torch.zeros(len(rollouts), 0, dtype=torch.bool)
    )  # fmt: skip
    return columns | {
        "segment_is_image": [[s.kind != "text" for s in row] for row in rollouts.segments],
        "segment_is_shown": [[s.kind == "shown" for s in row] for row in rollouts.segments],
        "segment_picture": [[s.picture for s in row] for row in rollouts.segments],
        "segment_context": [[s.context for s in row] for row in rollouts.segments],
        "draw_ids": _empty_lists(len(rollouts)),
        "fresh_lengths": [list(row) for row in zip(*(as_ints(c.mask.sum(1)) for c in fresh))] or [[]] * len(rollouts),
        "fresh_ids": arrow.split_lists(ids[mask].numpy(), mask.sum(1).numpy()),
    }


def _segments(table: arrow.Table, valid: Tensor) -> dict[str, Any]:
    """Read segment, is_image and segments of rows.

    valid: (B, T) bool, True = token, False = padding.
    """
    lengths = arrow.values(table["segment_lengths"])
    per_row = arrow.lengths(table["segment_lengths"])
    index = np.concatenate([np.arange(0), *map(np.arange, per_row)])
    segment, is_image = torch.full(valid.shape, -1, dtype=torch.int8), torch.zeros_like(valid)
    segment[valid] = torch.as_tensor(np.repeat(index, lengths)).to(torch.int8)
    is_image[valid] = torch.as_tensor(np.repeat(arrow.values(table["segment_is_image"]), lengths))
    columns: dict[str, Any] = {"segment": segment, "is_image": is_image}
    if "segment_context" in table.column_names:
        names = ("segment_is_image", "segment_is_shown", "segment_picture", "segment_context")
        rows = zip(*(table[name].to_pylist() for name in names))
        columns["segments"] = tuple(
            tuple(
                Segment("shown" if is_shown else "drawn" if image else "text", picture, context)
                for image, is_shown, picture, context in zip(*row)
            )
            for row in rows
        )
    return columns


def _fresh(table: arrow.Table, footer: Footer) -> tuple[Context, ...]:
    """Read the fresh contexts."""
    widths = footer.widths[2:]
    if "fresh_ids" not in table.column_names:
        return tuple(
            Context(*arrow.to_padded(table["draw_ids"], w, footer.pad_id, torch.int64)) for w in widths if w > 0
        )
    ids = torch.as_tensor(arrow.values(table["fresh_ids"]).astype(np.int64))
    lengths = arrow.values(table["fresh_lengths"]).astype(np.int64).reshape(len(table), len(widths))
    context_of_id = torch.as_tensor(np.repeat(np.tile(np.arange(len(widths)), len(table)), lengths.flatten()))
    fresh: list[Context] = []
    for i, width in enumerate(widths):
        mask = torch.arange(width) < torch.as_tensor(lengths[:, i].copy())[:, None]
        padded = torch.full(mask.shape, footer.pad_id)
        padded[mask] = ids[context_of_id == i]
        fresh.append(Context(padded, mask))
    return tuple(fresh)


def _empty_lists(num_rows: int) -> arrow.Column:
    """Make an empty list for each row."""
    return arrow.to_lists(torch.zeros(num_rows, 0))


def _structure(prompt: Prompt) -> str:
    """Write the facts that judges need from a prompt as JSON.

    A tuple inside a clause or a fact comes back as a list.
    """
    row = row_of(prompt)
    return json.dumps({name: value for name, value in row.items() if name not in ("id", "prompt", "tag")})


def _prompt(text: str, id: str, tag: str, structure: str) -> Prompt:
    """Rebuild a prompt from its columns."""
    row = json.loads(structure) | {"prompt": text, "tag": tag}
    return dataclasses.replace(prompt_of(row, "a stored prompt", 0), id=id)
