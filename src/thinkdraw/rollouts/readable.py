"""The segments of a rollout as texts and pictures, for people to look at."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinkdraw.types import Policy, Rollouts
from thinkdraw.types.segments import as_ints


@dataclass(frozen=True)
class ReadableSegment:
    """A segment as a text or a picture.

    kind: text, drawn or shown.
    picture: (H, W, 3) uint8 on the CPU, as far as it was drawn by then; None for a text.
    """

    kind: str
    text: str = ""
    picture: Tensor | None = field(default=None, compare=False, repr=False)


def readable_segments(rollouts: Rollouts, row: int, policy: Policy) -> list[ReadableSegment]:
    """Convert a row's segments, in order.

    Consecutive segments of one picture, such as its scales, become one.
    """
    segments = rollouts.segments_of(row)
    drawn: dict[int, list[Tensor]] = {}
    readables: list[ReadableSegment] = []
    for index, segment in enumerate(segments):
        tokens = rollouts.segment_tokens(row, index)
        if segment.kind == "text":
            readables.append(ReadableSegment("text", text=policy.text.thought_text(as_ints(tokens))))
            continue
        if segment.kind == "drawn":
            parts = drawn.setdefault(segment.picture, [])
            parts.append(tokens)
            if any((s.kind, s.picture) == ("drawn", segment.picture) for s in segments[index + 1 : index + 2]):
                continue
            tokens = torch.cat(parts)
        readables.append(ReadableSegment(segment.kind, picture=policy.decode_tokens(tokens[None])[0].cpu()))
    return readables
