"""A corpus's pictures as image tokens, computed once, with a file for each shard.

Each file also records which part of each picture was tokenised.
"""

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

    folder: Path = Field(description="Folder of the corpus; the tokens are kept beside its shards.")
    policy: str = Field(
        default="lab",
        description="Checkpoint whose picture tokenizer is used: checkpoint folder, run folder (its best "
        "checkpoint), model id, or `lab`.",
    )
    device: str = Field(
        default="auto",
        description="Where the network runs: auto, cpu, cuda or mps. auto takes an accelerator where there is one.",
    )
    pictures: PictureReaderConfig = Field(
        default=PictureReaderConfig(), description="How picture files are read; SFT must read them in the same way."
    )


@dataclass(frozen=True)
class Encoder:
    """What turns pictures into image tokens.

    encode: uint8 pictures (B, height, width, 3) → codes (B, N) below 65,536. digest: of the weights that encode.
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
    """The image tokens of one shard.

    image_tokens: (rows, N) uint16. crop: (rows, 3) int32: left, top and width in the picture's own pixels; width 0 for a picture that
    is missing or cannot be read. notes: what was done to pictures when they were read, and to how many.
    """

    image_tokens: Tensor
    crop: Tensor
    notes: Counter[str] = field(default_factory=Counter)


def tokens_folder(corpus: Path, encoder: Encoder) -> Path:
    """Return the folder in which `corpus tokenise` keeps them."""
    return corpus / TOKENS / encoder.digest[:16]


def tokenise(corpus: Path, folder: Path, encoder: Encoder, keep: bool = True) -> Iterator[tuple[Path, ShardTokens]]:
    """Yield the tokens of each shard in order.

    They come from `folder` where they are there and still match the shard; otherwise they are computed. keep: write computed ones.
    Raises UserError for a corpus without shards.
    """
    shards = shards_of(corpus)
    if not shards:
        raise UserError(f"{corpus} holds no parquet file. Give a corpus folder, or a .parquet file.")
    digests = Digests(folder / HASHES)
    for shard in shards:
        file, about = folder / f"{shard.stem}.safetensors", _about(shard, encoder, digests)
        tokens = _read(file, about)
        if tokens is None:
            if file.exists():
                logger.warning("%s is damaged, or does not match %s as it is read now: tokenised again", file, shard)
            tokens = _tokenise_shard(shard, encoder)
            if keep:
                metadata = about | {_NOTES: json.dumps(tokens.notes)}
                write_tensors(file, {"image_tokens": tokens.image_tokens, "crop": tokens.crop}, metadata)
        yield shard, tokens
    if keep:
        digests.keep()


def read_tokens(corpus: Path, folder: Path, encoder: Encoder) -> list[ShardTokens] | None:
    """Read the tokens of all shards.

    None where any is missing, or belongs to another corpus or encoder.
    """
    if not folder.is_dir():
        return None
    digests = Digests(folder / HASHES)
    shards = shards_of(corpus)
    of_shards = [_read(folder / f"{shard.stem}.safetensors", _about(shard, encoder, digests)) for shard in shards]
    digests.keep()
    if None in of_shards:
        logger.warning(
            "tokens in %s do not all match %s as it is read now: `corpus tokenise` computes them again", folder, corpus
        )
    return None if not of_shards or None in of_shards else [tokens for tokens in of_shards if tokens]


def _about(shard: Path, encoder: Encoder, digests: Digests) -> dict[str, str]:
    """Describe the sources of a shard's tokens, so that a change of any is noticed.

    They are the file's whole content, the weights that encode, and how pictures are read.
    """
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


def _tokenise_shard(shard: Path, encoder: Encoder, chunk: int = 64) -> ShardTokens:
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
    """Cut out the part of a cell's picture that is tokenised, and say where it was.

    What was done on reading is added to `notes`.
    """
    try:
        data = bytes_of(cell)
        if not data:
            return None, (0, 0, 0)
        read = read_with_notes(data, encoder.reading)
    except UnreadableError:
        return None, (0, 0, 0)
    notes.update(read.notes)
    return centre_crop(read.pixels, encoder.height, encoder.width)
