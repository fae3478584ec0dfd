"""Pictures of a corpus as image tokens, computed once: a file per shard, beside a record of which part was looked at."""

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from thinkdraw.config import StrictModel
from thinkdraw.data.corpus_rows import read_rows, shards_of
from thinkdraw.data.picture_bytes import bytes_of, centre_crop
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import DEFAULT_CONFIG, RULES, PictureReaderConfig, UnreadableError, read_with_notes
from thinkdraw.runtime.inputs.hashing import Digests
from thinkdraw.runtime.inputs.tensor_files import CONTENT, read_tensors, write_tensors

logger = logging.getLogger(__name__)

TOKENS = "tokens"
CROP = "centre square, bicubic"
HASHES = "shard_hashes.jsonl"
_NOTES = "notes"


class TokeniseConfig(StrictModel):
    """Which corpus is turned into image tokens, and by which checkpoint."""

    folder: Path = Field(description="The corpus folder; tokens are kept beside its shards.")
    policy: str = Field(
        default="lab",
        description="Checkpoint whose picture tokenizer is used: folder, run folder, Hugging Face id, or `lab`.",
    )
    device: str = Field(default="auto", description="Where to compute: auto (a GPU if there is one), cpu, cuda or mps.")
    pictures: PictureReaderConfig = Field(
        default=PictureReaderConfig(), description="How picture files are read; SFT must read them in the same way."
    )


@dataclass(frozen=True)
class Encoder:
    """encode: uint8 pictures (B, height, width, 3) → codes (B, N) below 65,536. digest: of the weights that encode.

    reading: how picture files are read.
    """

    encode: Callable[[Tensor], Tensor]
    height: int
    width: int
    num_tokens: int
    digest: str
    reading: PictureReaderConfig = DEFAULT_CONFIG


@dataclass(frozen=True)
class ShardTokens:
    """image_tokens: (rows, N) uint16. crop: (rows, 3) int32, left, top and width in the picture's own pixels; width 0: no
    picture, or one that cannot be read. notes: what was done to pictures when they were read, and to how many."""

    image_tokens: Tensor
    crop: Tensor
    notes: Counter[str] = field(default_factory=Counter)


def tokens_folder(corpus: Path, encoder: Encoder) -> Path:
    """Where `corpus tokenise` keeps them."""
    return corpus / TOKENS / encoder.digest[:16]


def tokenise(corpus: Path, folder: Path, encoder: Encoder, keep: bool = True) -> Iterator[tuple[Path, ShardTokens]]:
    """The tokens of each shard in order, from `folder` where they are there and still those of the shard.

    keep: write what was not. Raises UserError for a corpus without shards.
    """
    shards = shards_of(corpus)
    if not shards:
        raise UserError(f"{corpus} holds no parquet file. Give a corpus folder, or a .parquet file.")
    digests = Digests(folder / HASHES)
    for shard in shards:
        file, about = folder / f"{shard.stem}.safetensors", _about(shard, encoder, digests)
        found = _read(file, about)
        if found is None:
            if file.exists():
                logger.warning(
                    "%s is damaged, not of %s as it is read now, or does not say: tokenised anew", file, shard
                )
            found = _tokenised(shard, encoder)
            if keep:
                told = about | {_NOTES: json.dumps(found.notes)}
                write_tensors(file, {"image_tokens": found.image_tokens, "crop": found.crop}, told)
        yield shard, found
    if keep:
        digests.keep()


def read_tokens(corpus: Path, folder: Path, encoder: Encoder) -> list[ShardTokens] | None:
    """Of all shards, or None where any is missing or of another corpus or encoder."""
    if not folder.is_dir():
        return None
    digests = Digests(folder / HASHES)
    shards = shards_of(corpus)
    found = [_read(folder / f"{shard.stem}.safetensors", _about(shard, encoder, digests)) for shard in shards]
    digests.keep()
    if None in found:
        logger.warning(
            "tokens in %s are not all of %s as it is read now: `corpus tokenise` makes them anew", folder, corpus
        )
    return None if not found or None in found else [tokens for tokens in found if tokens]


def _about(shard: Path, encoder: Encoder, digests: Digests) -> dict[str, str]:
    """What a shard's tokens are made of: the whole content of the file, the weights that encode and how pictures are read."""
    high, wide = encoder.height, encoder.width
    pixels = str(high) if high == wide else f"{high}×{wide}"
    read = f"rules {RULES}, {encoder.reading.model_dump_json()}"
    return {"shard": digests.of(shard), "vq": encoder.digest, "pixels": pixels, "crop": CROP, "read": read}


def _read(file: Path, about: dict[str, str]) -> ShardTokens | None:
    try:
        tensors, told = read_tensors(file)
        told.pop(CONTENT, None)
        notes = Counter(json.loads(told.pop(_NOTES, "{}")))
        return ShardTokens(tensors["image_tokens"], tensors["crop"], notes) if told == about else None
    except ValueError:
        return None


def _tokenised(shard: Path, encoder: Encoder, chunk: int = 64) -> ShardTokens:
    codes: list[Tensor] = []
    crops: list[tuple[int, int, int]] = []
    waiting: list[np.ndarray] = []
    notes: Counter[str] = Counter()

    def flush() -> None:
        if waiting:
            codes.append(encoder.encode(torch.from_numpy(np.stack(waiting))).cpu().to(torch.uint16))
            waiting.clear()

    blank = np.zeros((encoder.height, encoder.width, 3), dtype=np.uint8)
    for cell in read_rows(shard, ("image",)):
        picture, crop = _crop(cell.get("image"), encoder, notes)
        crops.append(crop)
        waiting.append(blank if picture is None else picture)
        if len(waiting) == chunk:
            flush()
    flush()
    empty = torch.zeros(0, encoder.num_tokens, dtype=torch.uint16)
    where = torch.tensor(crops, dtype=torch.int32).reshape(-1, 3)
    return ShardTokens(torch.cat(codes) if codes else empty, where, notes)


def _crop(cell: object, encoder: Encoder, notes: Counter[str]) -> tuple[np.ndarray | None, tuple[int, int, int]]:
    """The part of a cell's picture that is tokenised, and where it was; what was done on reading is added to `notes`."""
    try:
        data = bytes_of(cell)
        if not data:
            return None, (0, 0, 0)
        read = read_with_notes(data, encoder.reading)
    except UnreadableError:
        return None, (0, 0, 0)
    notes.update(read.notes)
    return centre_crop(read.pixels, encoder.height, encoder.width)
