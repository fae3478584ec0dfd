"""Rollouts of many segments, made by hand, and a policy that scores them without a model."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from thinkdraw.types import Context, PictureSpec, Prompt, Rollouts, Sampling, Segment, TokenLogProbs

PICTURE = PictureSpec(height=8, width=8, num_tokens=16, num_codes=64)
PAD = 0
INTERLEAVED = (
    Segment("text"),
    Segment("drawn", picture=0, context=1),
    Segment("text", context=2),
    Segment("drawn", picture=0, context=3),
    Segment("shown", picture=0, context=4),
    Segment("text", context=5),
    Segment("drawn", picture=1, context=6),
)
LENGTHS = (3, 6, 2, 10, 16, 4, 16)
SCALES = (1, 1, 1, 1, 1, 2, 2, 2, 2, 3)


def interleaved(group_size: int = 2) -> Rollouts:
    """Two groups: text, part of a picture, text, the rest, the picture shown, text, another picture; a context each.

    The second group's rows differ: one stops after its first picture, and one draws nothing but a picture."""
    short = (Segment("drawn", picture=0, context=1),)
    rows = [(INTERLEAVED, LENGTHS)] * group_size + [(INTERLEAVED[:4], LENGTHS[:4]), (short, (16,))]
    return made(rows, num_fresh=6, group_size=group_size)


def of_ten_scales() -> Rollouts:
    return made([(tuple(Segment("drawn", picture=0) for _ in SCALES), SCALES)] * 4, num_fresh=0, group_size=2)


def made(
    rows: Sequence[tuple[tuple[Segment, ...], tuple[int, ...]]], num_fresh: int, group_size: int, seed: int = 0
) -> Rollouts:
    """Random tokens; the last token of a text was forced, and nobody chose what was shown."""
    torch.manual_seed(seed)
    size, width = len(rows), max(sum(lengths) for _, lengths in rows) + 1
    segment = torch.full((size, width), -1, dtype=torch.int8)
    is_image, mask = torch.zeros(size, width, dtype=torch.bool), torch.zeros(size, width, dtype=torch.bool)
    for r, (segments, lengths) in enumerate(rows):
        begin = 0
        for s, (kind, length) in enumerate(zip(segments, lengths, strict=True)):
            segment[r, begin : begin + length], is_image[r, begin : begin + length] = s, kind.kind != "text"
            mask[r, begin : begin + length - (kind.kind == "text")] = kind.kind != "shown"
            begin += length
    tokens = torch.randint(1, PICTURE.num_codes, segment.shape) * (segment >= 0)
    return Rollouts(
        prompts=tuple(Prompt(f"prompt {r // group_size}", id=str(r // group_size)) for r in range(size)),
        prompt_ids=_ids(size, 5).ids, prompt_mask=_ids(size, 5).mask, tokens=tokens, is_image=is_image, segment=segment,
        mask=mask, log_probs=torch.where(mask, -torch.rand(segment.shape), 0.0), seeds=torch.arange(size),
        sampling=Sampling(), group_size=group_size, revision="by hand",
        fresh_contexts=tuple(_ids(size, 3 + i) for i in range(num_fresh)), segments=tuple(segments for segments, _ in rows),
        thoughts=tuple(f"thoughts of row {r}" for r in range(size)),
    )  # fmt: skip


def _ids(size: int, width: int) -> Context:
    """Row r has r ids less than the width, and at least one."""
    mask = torch.arange(width) < torch.tensor([max(1, width - r) for r in range(size)])[:, None]
    return Context(torch.where(mask, torch.arange(width) + 7, PAD), mask)


class StubText:
    pad, controls, vocabulary_hash = PAD, frozenset[int](), hashlib.sha256(b"stub").hexdigest()

    def thought_text(self, ids: Sequence[int]) -> str:
        return " ".join(f"word{i}" for i in ids)


class StubPolicy:
    """Scores a token by a weight of its own, so that a test can say what a gradient must be; draws codes as greys."""

    precision, device = "fp32", torch.device("cpu")
    text, picture = StubText(), PICTURE

    def __init__(self) -> None:
        self.network = nn.Embedding(PICTURE.num_codes, 1)
        nn.init.normal_(self.network.weight, generator=torch.Generator().manual_seed(1))

    def log_probs(self, rollouts: Rollouts) -> TokenLogProbs:
        scores = -self.network(rollouts.tokens)[..., 0].square()
        scores = scores.masked_fill(~rollouts.mask, 0.0)
        return TokenLogProbs(scores, -scores)

    def decode_tokens(self, image_tokens: Tensor) -> Tensor:
        """Each code is 2 × 2 pixels of its grey; what is missing is black."""
        codes = torch.nn.functional.pad(image_tokens, (0, PICTURE.num_tokens - image_tokens.shape[1]))
        grey = (codes.reshape(-1, 4, 4) * 4).to(torch.uint8)
        grey = grey.repeat_interleave(2, 1).repeat_interleave(2, 2)
        return grey[..., None].expand(-1, -1, -1, 3)
