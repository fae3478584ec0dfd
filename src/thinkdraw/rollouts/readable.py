"""What the segments of a rollout say and show, for whoever looks at it."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from thinkdraw.types import Policy, Rollouts
from thinkdraw.types.segments import as_ints


@dataclass(frozen=True)
class ReadableSegment:
    """kind: text, drawn or shown. text: of a text. picture: (H, W, 3) uint8 on the CPU, as far as it was drawn by then."""

    kind: str
    text: str = ""
    picture: Tensor | None = field(default=None, compare=False, repr=False)


def readable(rollouts: Rollouts, row: int, policy: Policy) -> list[ReadableSegment]:
    """A row's segments in order; parts of one picture with nothing between them, scales for instance, are one."""
    segments = rollouts.segments_of(row)
    drawn: dict[int, list[Tensor]] = {}
    found: list[ReadableSegment] = []
    for index, segment in enumerate(segments):
        tokens = rollouts.segment_tokens(row, index)
        if segment.kind == "text":
            found.append(ReadableSegment("text", text=policy.text.thought_text(as_ints(tokens))))
            continue
        if segment.kind == "drawn":
            parts = drawn.setdefault(segment.picture, [])
            parts.append(tokens)
            if any((s.kind, s.picture) == ("drawn", segment.picture) for s in segments[index + 1 : index + 2]):
                continue
            tokens = torch.cat(parts)
        found.append(ReadableSegment(segment.kind, picture=policy.decode_tokens(tokens[None])[0].cpu()))
    return found
