"""The messages of `thinkdraw serve`, as JSON: rollouts one way, verdicts back.

Both sides hash the rows that they hold. A verdict carries the hash of the row that the server judged, and the client
takes it only for the row that it asked about. All that a reward may read travels: prompts with their structure,
thoughts, tokens with their segments, pictures, group size and sampling settings. Log-probs do not travel, and are NaN
on the other side.
"""

import base64
import binascii
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import FailFast, Field, TypeAdapter, ValidationError
from torch.nn.utils.rnn import pad_sequence

from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.picture_reader import picture_size, read_picture
from thinkdraw.rewards.judging import pictures_of, thoughts_of
from thinkdraw.types import Prompt, Rollouts, Sampling, Segment

API = 1
ABOUT, JUDGE = f"/v{API}/about", f"/v{API}/judge"
PictureForm = Literal["raw", "png"]
_PNG = b"\x89PNG\r\n\x1a\n"

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Message = TypeVar("_Message", bound=StrictModel)
_PROMPT = TypeAdapter(Prompt)
_OTHER_VALUES = 1_000_000  # values of prompts and pictures, and commas in texts
_OBJECTS, _NAMES = 200, 500  # most per row: of the row, its picture, its segments and its prompt
_MAX_ERRORS = 1000
_COLUMNS = {"tokens": torch.int64, "segment": torch.int8, "is_image": torch.bool, "mask": torch.bool}


class WireError(ValueError):
    """Bytes that are no message of this format: damaged, or of another program."""


class Limits(StrictModel):
    """What a server takes in one request. bytes: of the body.

    side: pixels of a picture's longer side. tokens: of all rows, each as long as the longest, as they are padded.
    pixels: of all pictures, unpacked.
    """

    rows: int = Field(default=256, ge=1, description="Most rollouts in one request.")
    bytes: int = Field(default=128_000_000, ge=1, description="Most bytes of a request's body.")
    side: int = Field(default=2048, ge=1, description="Longest side of a picture, in pixels.")
    tokens: int = Field(
        default=1_048_576, ge=1, description="Most tokens of a request: rows times the longest row, as they are padded."
    )
    pixels: int = Field(
        default=256 * 512 * 512, ge=1, description="Most pixels of all pictures of a request together, unpacked."
    )


class About(StrictModel):
    """Who answers: the reward's name, revision, components and weights.

    revision: of its settings and weights. components: null until they are known. weights: of the components, where it
    has such.
    """

    api: int = Field(description="Version of the message format.")
    version: str = Field(description="Version of thinkdraw that serves.")
    reward: str = Field(description="Name of the reward that is served.")
    revision: str = Field(description="Digest of the reward's settings and weights.")
    components: list[str] | None = Field(description="Names of the reward's components; null until they are known.")
    weights: dict[str, float] | None = Field(description="Weight of each component; null for a reward without such.")
    limits: Limits = Field(description="Most that one request may hold.")


class WirePicture(StrictModel):
    """A picture in base64: a PNG, or raw bytes and their shape (H, W, 3), uint8."""

    png: str | None = Field(default=None, description="The picture as a PNG file, in base64; null where it is raw.")
    raw: str | None = Field(
        default=None, description="Bytes of a uint8 array (H, W, 3), in base64; null where it is a PNG."
    )
    shape: tuple[int, int, int] | None = Field(default=None, description="Height, width and channels of a raw picture.")


class WireSegment(StrictModel):
    """What a segment is, see `Segment`; contexts do not travel."""

    kind: Literal["text", "drawn", "shown"] = Field(
        description="What the segment is: text, a picture that is drawn, or one that is shown."
    )
    picture: int = Field(description="Number of the segment's picture within its row.")


class WireRow(StrictModel):
    """A rollout. prompt: index into the request's prompts.

    tokens, segment, is_image, mask: without padding. segments: what they are, if more than a thought and a picture.
    """

    prompt: int = Field(ge=0, description="Index of the row's prompt in the request.")
    thought: str = Field(description="Text of the thought, in words.")
    tokens: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], FailFast()] = Field(
        description="Ids of all tokens, without padding."
    )
    segment: Annotated[list[Annotated[int, Field(ge=0, lt=2**7)]], FailFast()] = Field(
        description="Segment that each token belongs to."
    )
    is_image: Annotated[list[bool], FailFast()] = Field(description="Whether each token is an image token.")
    mask: Annotated[list[bool], FailFast()] = Field(description="Whether each token is trained.")
    segments: list[WireSegment] | None = Field(
        default=None, description="What each segment is; null for one thought and one picture."
    )
    picture: WirePicture = Field(description="The finished picture, as PNG or raw bytes.")


class JudgeRequest(StrictModel):
    """Whole groups of rollouts: `group_size` rows of each."""

    api: Literal[1] = Field(description="Version of the message format.")
    id: str = Field(description="The client's own name for the request, which the reply repeats.")
    group_size: int = Field(ge=1, description="Rollouts of each prompt that stand together.")
    sampling: Sampling = Field(description="How the rollouts were sampled.")
    prompts: list[Prompt] = Field(description="Prompts of the rows, each once, with their structure.")
    rows: list[WireRow] = Field(min_length=1, description="Rollouts to judge, whole groups in order.")


class Verdict(StrictModel):
    """The verdict on one row. hash: of the row, as the server holds it.

    A reward or component of null is no verdict, for that reason; or, where `applies` is false, there was nothing to
    judge.
    component_applies: components that it does not name apply.
    """

    hash: str = Field(description="Digest of the row that was judged, as the server holds it.")
    reward: _Number | None = Field(description="The row's reward; null is no verdict.")
    applies: bool = Field(default=True, description="Whether there was anything to judge.")
    components: dict[str, _Number | None] = Field(
        default={}, description="Value of each component of the reward; null is no verdict."
    )
    component_applies: dict[str, bool] = Field(
        default={}, description="Whether each component had anything to judge; those not named had."
    )
    reason: str | None = Field(default=None, description="Why there is no verdict, in words; null where there is one.")


class JudgeReply(StrictModel):
    """A verdict for each row, in their order, and the reward that gave them."""

    api: Literal[1] = Field(description="Version of the message format.")
    id: str = Field(description="Name of the request that this answers.")
    reward: str = Field(description="Name of the reward that judged.")
    revision: str = Field(description="Digest of the settings and weights that judged.")
    rows: list[Verdict] = Field(description="A verdict for each row, in their order.")


def row_hashes(rollouts: Rollouts) -> list[str]:
    """Hash all that travels of each row: SHA-256, in hex.

    A hash also covers the row's group, because a reward may compare its members.
    """
    settings = rollouts.sampling.model_dump_json()
    prompt_json = {id(prompt): _PROMPT.dump_json(prompt) for prompt in rollouts.prompts}
    contents = []
    for prompt, row, picture in zip(rollouts.prompts, _rows(rollouts), _pictures(rollouts)):
        text = json.dumps([settings, *row.values(), picture.shape])
        contents.append(hashlib.sha256(prompt_json[id(prompt)] + text.encode() + picture.tobytes()).digest())
    size, hashes = rollouts.group_size, []
    for first in range(0, len(rollouts), size):
        group = b"".join(contents[first : first + size])
        hashes += [hashlib.sha256(group + str(member).encode()).hexdigest() for member in range(size)]
    return hashes


def write_request(rollouts: Rollouts, request_id: str, pictures: PictureForm = "raw") -> bytes:
    """Write a request's body. pictures: png is smaller, but slower to write and read."""
    index: dict[int, int] = {}  # by object: a group shares its prompt, which then travels once
    numbers = [index.setdefault(id(prompt), len(index)) for prompt in rollouts.prompts]
    prompts = [rollouts.prompts[numbers.index(number)] for number in range(len(index))]
    message = {
        "api": API,
        "id": request_id,
        "group_size": rollouts.group_size,
        "sampling": rollouts.sampling.model_dump(),
        "prompts": [_PROMPT.dump_python(prompt, mode="json") for prompt in prompts],
        "rows": [
            {"prompt": number, **row, "picture": _write_picture(picture, pictures)}
            for number, row, picture in zip(numbers, _rows(rollouts), _pictures(rollouts))
        ],
    }
    return json.dumps(message, allow_nan=False).encode()


def read_request(body: bytes, limits: Limits) -> tuple[str, Rollouts]:
    """Read a request: its id and its rollouts, on the CPU.

    Raises WireError for what is no request, UserError for a request that cannot be judged.
    """
    _check_size(body, limits)
    request = parse(JudgeRequest, body)
    for name, count in (("rows", len(request.rows)), ("prompts", len(request.prompts))):
        if count > limits.rows:
            raise UserError(f"{count} {name} in one request: this server takes {limits.rows}. Send fewer.")
    if len(request.rows) % request.group_size:
        raise WireError(f"{len(request.rows)} rows do not divide into groups of {request.group_size}")
    if max(row.prompt for row in request.rows) >= len(request.prompts):
        raise WireError(f"a row names a prompt beyond the {len(request.prompts)} that came")
    if any(not prompt.text.strip() for prompt in request.prompts):
        raise UserError("a prompt is empty, so there is nothing to judge a picture by. Leave such prompts out.")
    if any(len({len(getattr(row, name)) for name in _COLUMNS}) > 1 for row in request.rows):
        raise WireError("tokens, segment, is_image and mask of a row differ in length")
    longest = max(len(row.tokens) for row in request.rows)
    if longest * len(request.rows) > limits.tokens:
        raise UserError(
            f"{len(request.rows)} rows of up to {longest} tokens: with padding, this server takes {limits.tokens} in one request. "
            "Send fewer rows, or raise limits.tokens there."
        )
    pictures = _read_pictures([row.picture for row in request.rows], limits)
    if len({picture.shape for picture in pictures}) > 1:
        raise WireError("pictures of several sizes in one request")
    columns = {
        name: [torch.tensor(getattr(row, name), dtype=dtype) for row in request.rows] for name, dtype in _COLUMNS.items()
    }  # fmt: skip
    padded: dict[str, Any] = {
        name: pad_sequence(rows, True, -1 if name == "segment" else 0) for name, rows in columns.items()
    }
    count = len(request.rows)
    nothing = torch.zeros(count, 0)
    try:
        rollouts = Rollouts(
            prompts=tuple(request.prompts[row.prompt] for row in request.rows), prompt_ids=nothing.long(),
            prompt_mask=nothing.bool(), **padded, log_probs=torch.full(padded["tokens"].shape, math.nan),
            seeds=torch.full((count,), -1), sampling=request.sampling, group_size=request.group_size,
            pictures=torch.from_numpy(np.stack(pictures)), segments=_segments(request.rows),
            thoughts=tuple(row.thought for row in request.rows),
        )  # fmt: skip
    except ValueError as error:
        raise WireError(str(error)) from error
    return request.id, rollouts


def _segments(rows: list[WireRow]) -> tuple[tuple[Segment, ...], ...]:
    """Return the rows' segments; () where no row says what its segments are.

    Raises ValueError where some rows do and some do not.
    """
    if all(row.segments is None for row in rows):
        return ()
    if any(row.segments is None for row in rows):
        raise ValueError("some rows say what their segments are and some do not")
    return tuple(tuple(Segment(s.kind, s.picture) for s in row.segments or ()) for row in rows)


def read_reply(body: bytes, request_id: str, hashes: list[str], revision: str) -> list[Verdict]:
    """Read the verdicts on the rows of these hashes.

    Raises WireError for a reply that is damaged, to another request, on other rows, or of another revision.
    """
    reply = parse(JudgeReply, body)
    if reply.id != request_id:
        raise WireError("the reply is to another request")
    if reply.revision != revision:
        raise WireError(f"the judge now has revision {reply.revision}, and had {revision} at the start")
    if len(reply.rows) != len(hashes):
        raise WireError(f"the reply has {len(reply.rows)} verdicts for {len(hashes)} rows")
    if [verdict.hash for verdict in reply.rows] != hashes:
        raise WireError("the reply has verdicts on other rows")
    return reply.rows


def parse(message: type[_Message], body: bytes) -> _Message:
    """Parse a message. Raises WireError, in one line and without the content."""
    try:
        return message.model_validate_json(body)
    except ValidationError as error:
        if (count := error.error_count()) > _MAX_ERRORS:  # describing so many errors would take long
            raise WireError(f"no {message.__name__}: {count} values are wrong") from None
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(key) for key in first["loc"])
        raise WireError(f"no {message.__name__}: {where + ': ' if where else ''}{first['msg']}") from error


def _pictures(rollouts: Rollouts) -> np.ndarray:
    """Return the pictures as (B, H, W, 3) uint8 on the CPU."""
    pictures = pictures_of(rollouts)
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise ValueError(f"pictures of {pictures.dtype} {tuple(pictures.shape)}: expected uint8 (B, H, W, 3).")
    return pictures.cpu().numpy()


def _rows(rollouts: Rollouts) -> list[dict[str, Any]]:
    """List each row's thought and tokens, without the padding on their right."""
    lengths = (rollouts.segment >= 0).sum(1).tolist()
    columns: dict[str, list] = {name: getattr(rollouts, name).tolist() for name in _COLUMNS}
    rows = [
        {"thought": thought, **{name: values[i][: lengths[i]] for name, values in columns.items()}}
        for i, thought in enumerate(thoughts_of(rollouts))
    ]
    for row, segments in zip(rows, rollouts.segments):
        row["segments"] = [{"kind": s.kind, "picture": s.picture} for s in segments]
    return rows


def _write_picture(picture: np.ndarray, form: PictureForm) -> dict[str, Any]:
    if form == "png":
        return {"png": base64.b64encode(to_png(picture)).decode()}
    return {"raw": base64.b64encode(picture.tobytes()).decode(), "shape": picture.shape}


def _check_size(body: bytes, limits: Limits) -> None:
    """Raise UserError for a body with more values than its rows and tokens can have.

    Counting marks is cheap; parsing would first make an object of every value.
    """
    max_counts = {
        b",": len(_COLUMNS) * limits.tokens + _OTHER_VALUES,
        b"{": _OBJECTS * (limits.rows + 1),
        b":": _NAMES * (limits.rows + 1),
    }
    if any(body.count(mark) > count for mark, count in max_counts.items()):
        raise UserError(
            f"the request has more values than {limits.rows} rows and {limits.tokens} tokens can have. Send fewer rows, or "
            "raise limits.rows and limits.tokens there."
        )


def _read_pictures(pictures: Sequence[WirePicture], limits: Limits) -> list[np.ndarray]:
    """Unpack pictures to (H, W, 3) uint8 each.

    The sizes of all are checked before any is unpacked: a small file may claim a huge picture.
    """
    try:
        headers = [_open_picture(picture) for picture in pictures]
        pixels = 0
        for width, height, _ in headers:
            if max(height, width) > limits.side:
                raise UserError(
                    f"a picture of {width}×{height}: this server takes {limits.side} pixels a side. Make it smaller."
                )
            pixels += max(0, height) * max(0, width)  # a negative size must not make room for other pictures
        if pixels > limits.pixels:
            raise UserError(
                f"pictures of {pixels} pixels in one request: this server takes {limits.pixels}. Send fewer."
            )
        return [unpack() for _, _, unpack in headers]
    except ValueError as error:
        raise WireError(f"a picture cannot be read ({' '.join(str(error).split())[:120]})") from error


def _open_picture(picture: WirePicture) -> tuple[int, int, Callable[[], np.ndarray]]:
    """Return the claimed width and height, and a function that unpacks the pixels.

    Both raise ValueError.
    """
    if picture.png is None:
        height, width, _ = picture.shape or (0, 0, 0)
        return width, height, partial(_read_raw, picture)
    png = binascii.a2b_base64(picture.png, strict_mode=True)
    if not png.startswith(_PNG):
        raise ValueError("it is no PNG")
    return *picture_size(png), partial(read_picture, png)


def _read_raw(picture: WirePicture) -> np.ndarray:
    content = binascii.a2b_base64(picture.raw or "", strict_mode=True)
    height, width, channels = picture.shape or (0, 0, 0)
    if channels != 3 or min(height, width) < 1 or len(content) != height * width * channels:
        raise ValueError(f"one of shape {picture.shape} has {len(content)} bytes")
    return np.frombuffer(content, np.uint8).reshape(height, width, channels)
