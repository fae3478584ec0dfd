"""Rollouts ↔ the rows of a shard, exactly: padding is not written, and comes back as it was."""

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from thinkdraw.data.prompt_files import prompt_of, row_of
from thinkdraw.errors import UserError
from thinkdraw.types import Kept, Prompt, Rollouts, Sampling

SCHEMA = pa.schema(
    [
        ("row", pa.int64()),  # counted over the whole store, as `group` is
        ("group", pa.int64()),
        ("member", pa.int32()),
        *((name, pa.string()) for name in ("prompt", "prompt_id", "tag", "structure", "thought")),
        ("prompt_ids", pa.list_(pa.uint32())),  # the context before the first token
        ("draw_ids", pa.list_(pa.uint32())),  # the fresh context of a `rewrite` picture, else empty
        ("tokens", pa.list_(pa.uint32())),  # texts and pictures on one axis
        ("segment_lengths", pa.list_(pa.uint32())),
        ("segment_is_image", pa.list_(pa.bool_())),
        ("mask", pa.list_(pa.bool_())),
        ("log_probs", pa.list_(pa.float32())),
        ("image_tokens", pa.list_(pa.uint16())),  # the last picture again, for readers that want only that
        ("kept_counts", pa.list_(pa.uint32())),  # empty where nothing was cut
        ("kept_indices", pa.list_(pa.uint32())),
        ("seed", pa.int64()),
        ("sampling", pa.string()),
        ("revision", pa.string()),
        ("policy", pa.string()),
        ("time", pa.timestamp("ms", tz="UTC")),
    ]
)
KEY = b"thinkdraw"
NOT_CONTENT = ("policy", "time")  # where and when, not what


@dataclass(frozen=True)
class Footer:
    """What the rows of a shard have in common, kept in the file's footer.

    widths: columns of tokens, prompt_ids and draw_ids (0: none) with padding. pad_id: what prompt_ids are padded with.
    digest: SHA-256 of all but NOT_CONTENT.
    """

    first_row: int
    num_rows: int
    first_group: int
    group_size: int
    widths: tuple[int, int, int]
    pad_id: int
    has_kept: bool
    has_thoughts: bool
    sampling: dict[str, Any]
    revision: str
    policy: str
    digest: str = ""

    @property
    def end_row(self) -> int:
        return self.first_row + self.num_rows

    @property
    def num_groups(self) -> int:
        return self.num_rows // self.group_size

    @property
    def end_group(self) -> int:
        return self.first_group + self.num_groups

    @staticmethod
    def of(schema: pa.Schema) -> "Footer":
        """Raises KeyError, TypeError or ValueError where there is none."""
        footer = Footer(**json.loads((schema.metadata or {})[KEY]))
        return dataclasses.replace(footer, widths=tuple(footer.widths))


def to_table(rollouts: Rollouts, pad_id: int, policy: str) -> tuple[pa.Table, Footer]:
    """The rows and their footer as the first of a store; `placed` moves them. Pictures are left out.

    Raises ValueError for padding that is not on the right, or segments out of order.
    """
    rollouts = rollouts.to("cpu")
    size, settings = len(rollouts), rollouts.sampling.model_dump(mode="json")
    valid = rollouts.segment >= 0
    segment_lengths, segment_is_image = _segments(rollouts, valid)
    empty = torch.zeros(size, 0)
    kept = rollouts.kept
    structures = {key: _structure(p) for key, p in {id(p): p for p in rollouts.prompts}.items()}  # groups share theirs
    columns: dict[str, Any] = {
        "row": np.arange(size),
        "group": np.arange(size) // rollouts.group_size,
        "member": np.arange(size) % rollouts.group_size,
        "prompt": [p.text for p in rollouts.prompts],
        "prompt_id": [p.id for p in rollouts.prompts],
        "tag": [p.tag for p in rollouts.prompts],
        "structure": [structures[id(p)] for p in rollouts.prompts],
        "thought": rollouts.thoughts or ("",) * size,
        "prompt_ids": _lists(rollouts.prompt_ids, rollouts.prompt_mask),
        "draw_ids": _lists(empty if rollouts.draw_ids is None else rollouts.draw_ids, rollouts.draw_mask),
        "tokens": _lists(rollouts.tokens, valid),
        "segment_lengths": segment_lengths,
        "segment_is_image": segment_is_image,
        "mask": _lists(rollouts.mask, valid),
        "log_probs": _lists(rollouts.log_probs, valid),
        "image_tokens": _lists(rollouts.image_tokens()),
        "kept_counts": _lists(empty if kept is None else kept.counts, None if kept is None else valid),
        "kept_indices": _lists(empty) if kept is None else _cut(kept.indices.numpy(), kept.counts.sum(1).numpy()),
        "seed": rollouts.seeds.numpy(),
        "sampling": [json.dumps(settings)] * size,
        "revision": [rollouts.revision] * size,
        "policy": [policy] * size,
        "time": np.full(size, np.datetime64(time.time_ns() // 1_000_000, "ms")),
    }
    table = pa.table([pa.array(columns[f.name]).cast(f.type) for f in SCHEMA], schema=SCHEMA)
    draw_width = 0 if rollouts.draw_ids is None else rollouts.draw_ids.shape[1]
    footer = Footer(
        first_row=0, num_rows=size, first_group=0, group_size=rollouts.group_size,
        widths=(rollouts.tokens.shape[1], rollouts.prompt_ids.shape[1], draw_width), pad_id=pad_id,
        has_kept=kept is not None, has_thoughts=bool(rollouts.thoughts), sampling=settings,
        revision=rollouts.revision, policy=policy,
    )  # fmt: skip
    return table, footer


def placed(table: pa.Table, footer: Footer, first_row: int, first_group: int) -> pa.Table:
    """The table of `to_table` with its place in the store and its footer written in."""
    footer = dataclasses.replace(footer, first_row=first_row, first_group=first_group)
    for name, values in (
        ("row", first_row + np.arange(footer.num_rows)),
        ("group", first_group + np.arange(footer.num_rows) // footer.group_size),
    ):
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), pa.array(values))
    footer = dataclasses.replace(footer, digest=digest(table, footer))
    return table.replace_schema_metadata({KEY: json.dumps(dataclasses.asdict(footer))})


def to_rollouts(table: pa.Table, footer: Footer) -> Rollouts:
    """What was appended, on the CPU, without pictures."""
    width, prompt_width, draw_width = footer.widths
    tokens, valid = _padded(table["tokens"], width, 0, torch.int64)
    prompt_ids, prompt_mask = _padded(table["prompt_ids"], prompt_width, footer.pad_id, torch.int64)
    draw_ids = draw_mask = kept = None
    if draw_width:
        draw_ids, draw_mask = _padded(table["draw_ids"], draw_width, footer.pad_id, torch.int64)
    if footer.has_kept:
        indices = torch.from_numpy(_values(table["kept_indices"]).astype(np.int32))
        kept = Kept(indices, _padded(table["kept_counts"], width, 0, torch.int32)[0])
    segment = torch.full_like(tokens, -1, dtype=torch.int8)
    is_image = torch.zeros_like(valid)
    lengths = _values(table["segment_lengths"])
    segment[valid] = torch.from_numpy(np.repeat(_index_in_list(table["segment_lengths"]), lengths)).to(torch.int8)
    is_image[valid] = torch.from_numpy(np.repeat(_values(table["segment_is_image"]), lengths))
    texts = (table[name].to_pylist() for name in ("prompt", "prompt_id", "tag", "structure"))
    made: dict[tuple[str, ...], Prompt] = {}
    prompts = tuple(made.get(row) or made.setdefault(row, _prompt(*row)) for row in zip(*texts))
    return Rollouts(
        prompts=prompts, prompt_ids=prompt_ids, prompt_mask=prompt_mask, tokens=tokens, is_image=is_image,
        segment=segment, mask=_padded(table["mask"], width, False, torch.bool)[0],
        log_probs=_padded(table["log_probs"], width, 0, torch.float32)[0],
        seeds=torch.from_numpy(table["seed"].to_numpy().copy()), sampling=Sampling.model_validate(footer.sampling),
        group_size=footer.group_size, revision=footer.revision, draw_ids=draw_ids, draw_mask=draw_mask, kept=kept,
        thoughts=tuple(table["thought"].to_pylist()) if footer.has_thoughts else (),
    )  # fmt: skip


def digest(table: pa.Table, footer: Footer) -> str:
    """SHA-256 of the values, whatever the file format made of them."""
    common = dataclasses.asdict(dataclasses.replace(footer, digest="", policy=""))
    found = hashlib.sha256(json.dumps(common, sort_keys=True).encode())
    for name in (field.name for field in SCHEMA if field.name not in NOT_CONTENT):
        column = table[name]
        if pa.types.is_string(column.type):
            found.update(json.dumps(column.to_pylist()).encode())
        elif pa.types.is_list(column.type):
            found.update(_lengths(column).astype("<i8").tobytes() + _values(column).tobytes())
        else:
            found.update(column.to_numpy().tobytes())
    return found.hexdigest()


def _segments(rollouts: Rollouts, valid: Tensor) -> tuple[pa.Array, pa.Array]:
    """Length and kind of each row's segments."""
    segment, count = rollouts.segment.long(), int(rollouts.segment.max()) + 1
    lengths = torch.stack([(segment == s).sum(1) for s in range(count)], dim=1)
    is_image = torch.stack([(rollouts.is_image & (segment == s)).any(1) for s in range(count)], dim=1)
    ends = lengths.cumsum(1)
    column = torch.arange(segment.shape[1])
    index = (column[None, :, None] >= ends[:, None, :]).sum(2)  # of the segment that a column lies in
    in_order = torch.where(valid, index, -1)
    kinds = valid & is_image.gather(1, index.clamp(max=count - 1))
    if not torch.equal(in_order, segment) or not torch.equal(kinds, rollouts.is_image):
        raise ValueError("segments out of order, or one that is text and picture: they cannot be stored.")
    there = torch.arange(count) <= segment.amax(1, keepdim=True)
    return _lists(lengths, there), _lists(is_image, there)


def _structure(prompt: Prompt) -> str:
    """What judges need of the prompt, as JSON: a tuple inside a clause or a fact comes back as a list."""
    row = row_of(prompt)
    return json.dumps({name: value for name, value in row.items() if name not in ("id", "prompt", "tag")})


def _prompt(text: str, id: str, tag: str, structure: str) -> Prompt:
    row = json.loads(structure) | {"prompt": text, "tag": tag}
    return dataclasses.replace(prompt_of(row, "a stored prompt", 0), id=id)


def _lists(values: Tensor, keep: Tensor | None = None) -> pa.Array:
    """A list per row of values (B, T), of the first few where `keep` is True."""
    if keep is None:
        keep = torch.ones_like(values, dtype=torch.bool)
    lengths = keep.sum(1)
    if bool((keep != (torch.arange(keep.shape[1]) < lengths[:, None])).any()):
        raise ValueError("padding that is not on the right cannot be stored.")
    return _cut(values[keep].numpy(), lengths.numpy())


def _cut(values: np.ndarray, lengths: np.ndarray) -> pa.Array:
    if len(values) >= 1 << 31:
        raise UserError(
            f"{len(values):,} kept entries in one shard of {len(lengths)} rollouts are too many. Take fewer prompts "
            "per shard, or a smaller top_k or top_p."
        )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _padded(column: pa.ChunkedArray, width: int, fill: int | bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(B, width) values with `fill` on the right, and where they are not."""
    there = torch.arange(width) < torch.from_numpy(_lengths(column))[:, None]
    padded = torch.full(there.shape, fill, dtype=dtype)
    values = _values(column)
    padded[there] = torch.from_numpy(values.astype(np.int64) if values.dtype == np.uint32 else values).to(dtype)
    return padded, there


def _lengths(column: pa.ChunkedArray) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *(c.value_lengths().to_numpy() for c in column.chunks)])


def _values(column: pa.ChunkedArray) -> np.ndarray:
    chunks = [c.flatten().to_numpy(zero_copy_only=False) for c in column.chunks]
    return chunks[0].copy() if len(chunks) == 1 else np.concatenate(chunks)


def _index_in_list(column: pa.ChunkedArray) -> np.ndarray:
    """0, 1, … for the entries of each list."""
    lengths = _lengths(column)
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
