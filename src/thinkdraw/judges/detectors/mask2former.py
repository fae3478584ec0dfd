"""Mask2Former as GenEval's detector: COCO's 80 classes with masks, from raw logits.

Every step is mmdet 2.x's, which GenEval (arXiv 2310.11513) runs; transformers' own processor and post-processing do
something else (a 384-pixel square; masks cut at 384 pixels and enlarged without smoothing).
"""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

from thinkdraw.data.text_files import text_lines
from thinkdraw.errors import UserError
from thinkdraw.judges.detectors.labels import Found, FrozenDetector, check_fractions
from thinkdraw.judges.loading import read_model
from thinkdraw.types import Detection

NUM_CLASSES = 80
MAX_DETECTIONS = 100
DIVISOR = 32
PADDING = 128.0  # grey, before the mean is subtracted
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
_MASKS_AT_ONCE = 25  # enlarged together, so that memory stays near 100 MB per picture


class Mask2FormerForUniversalSegmentation(transformers.Mask2FormerForUniversalSegmentation):
    """transformers' class, whose backbone has a layer norm that no forward pass uses and published checkpoints lack."""

    _keys_to_ignore_on_load_missing = [r"swin\.layernorm\."]


class Mask2Former(FrozenDetector):
    """Mask2Former for COCO instances as a `Detector`: at most 100 detections with masks; score in 0..1, higher = surer.

    score: class probability × mean sigmoid inside the mask. One object may be found under several classes.
    path: a folder or a Hugging Face model id. GenEval's own weights are of another training run of this architecture,
    which transformers does not load; so scores made with this judge carry its name.
    max_pictures: per forward pass. names_file: GenEval's object_names.txt, a name per line in COCO's order; without,
    names are the checkpoint's, whose spelling may differ ("tv" or "tvmonitor").
    min_score: detections below are left out, which saves most of the masks' memory; GenEval looks at those above 0.3.
    short_side, long_side: a picture is scaled to fit into these; GenEval's unless given.
    `labels` given to `detect` must be among `names`. Raises UserError for one that is not, for a checkpoint that is
    absent, another model, damaged or without COCO's 80 classes, and for a names file that does not fit.
    Cheng et al. 2022 (arXiv 2112.01527).
    """

    name = "hf-mask2former"

    def __init__(
        self,
        path: Path | str = "facebook/mask2former-swin-small-coco-instance",
        device: str = "auto",
        max_pictures: int = 4,
        names_file: Path | str | None = None,
        min_score: float = 0.05,
        short_side: int = 800,
        long_side: int = 1333,
    ):
        super().__init__(path, device, max_pictures)
        check_fractions(self.name, min_score=min_score)
        if not 0 < short_side <= long_side:
            raise UserError(
                f"judge {self.name}: short_side={short_side} and long_side={long_side} must be at least 1, in this order."
            )
        self.min_score, self.short_side, self.long_side = min_score, short_side, long_side
        self.model = read_model(self.path, {"mask2former": Mask2FormerForUniversalSegmentation}).to(self.device)
        self.names = self._names(names_file)

    def _names(self, names_file: Path | str | None) -> tuple[str, ...]:
        known = self.model.config.id2label
        if sorted(known) != list(range(NUM_CLASSES)):
            raise UserError(
                f"judge {self.path} tells {len(known)} classes apart, not COCO's {NUM_CLASSES}. Give a checkpoint "
                "trained on COCO instances, such as facebook/mask2former-swin-small-coco-instance."
            )
        if names_file is None:
            return tuple(known[i] for i in range(NUM_CLASSES))
        names = tuple(line.strip() for _, line in text_lines(Path(names_file)))
        if len(names) != NUM_CLASSES or len(set(names)) != NUM_CLASSES or "" in names:
            raise UserError(
                f"names_file={names_file} has {len(names)} lines, {len(set(names) - {''})} distinct names: "
                f"it must name COCO's {NUM_CLASSES} classes in their order. Give GenEval's object_names.txt."
            )
        return names

    def _look(self, pictures: Tensor, asked: Sequence[list[str] | None]) -> Found:
        self._check_known(asked)
        pixels, inner = preprocess(pictures, self.short_side, self.long_side)
        out = self.model(pixels.to(self.device))
        padded, size = (pixels.shape[2], pixels.shape[3]), (pictures.shape[1], pictures.shape[2])
        found: Found = []
        for classes, masks, names in zip(out.class_queries_logits, out.masks_queries_logits, asked, strict=True):
            if classes.isfinite().all() and masks.isfinite().all():
                found.append(self._detections(classes, masks, padded, inner, size, names))
            else:
                found.append(None)
        return found

    def _detections(
        self,
        classes: Tensor,
        masks: Tensor,
        padded: tuple[int, int],
        inner: tuple[int, int],
        size: tuple[int, int],
        asked: list[str] | None,
    ) -> list[Detection]:
        """classes: (Q, 81) logits. masks: (Q, h, w) logits. padded, inner, size: (height, width) of what the model saw,
        of the picture in it, and of the picture as given."""
        probabilities = classes.softmax(-1)[:, :-1].flatten()
        best = probabilities.topk(min(MAX_DETECTIONS, len(probabilities)))
        pairs = [(i // NUM_CLASSES, self.names[i % NUM_CLASSES]) for i in best.indices.tolist()]
        chosen = [k for k, (_, name) in enumerate(pairs) if asked is None or name in asked]
        queries = sorted({pairs[k][0] for k in chosen})
        shapes = dict(zip(queries, _shapes(masks[queries], padded, inner, size), strict=True))
        found = []
        for k in chosen:
            query, name = pairs[k]
            mask, mask_score = shapes[query]
            score = float(best.values[k].cpu() * mask_score)
            if score >= self.min_score:
                found.append(Detection(name, tight_box(mask), score, mask=mask.numpy().copy()))
        return sorted(found, key=lambda d: -d.score)

    def _check_known(self, asked: Sequence[list[str] | None]) -> None:
        for name in {name for names in asked for name in names or ()} - set(self.names):
            near = difflib.get_close_matches(name, self.names, n=2, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {', '.join(self.names[:5])} …"
            raise UserError(
                f"judge {self.name} has no name {name!r}: {hint} names_file gives its {NUM_CLASSES} classes GenEval's "
                "names; for other things use a detector that is asked by name, such as grounding-dino."
            )


def preprocess(pictures: Tensor, short_side: int, long_side: int) -> tuple[Tensor, tuple[int, int]]:
    """(B, H, W, 3) uint8 → (B, 3, h, w) float32 as the model sees them, and (height, width) of the picture in there.

    Scaled to fit into (short_side, long_side), bilinear without antialiasing: OpenCV's INTER_LINEAR, within one of
    256 levels. Padded with grey on the right and below to multiples of 32, then normalised.
    """
    height, width = pictures.shape[1:3]
    scale = min(long_side / max(height, width), short_side / min(height, width))
    inner = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
    pixels = pictures.permute(0, 3, 1, 2).float()
    pixels = F.interpolate(pixels, size=inner, mode="bilinear", align_corners=False).round()
    pixels = F.pad(pixels, (0, -inner[1] % DIVISOR, 0, -inner[0] % DIVISOR), value=PADDING)
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1), inner


def tight_box(mask: Tensor) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2) around the True pixels of (H, W), right and lower edge exclusive; all 0 where none is True."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def _shapes(
    logits: Tensor, padded: tuple[int, int], inner: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Per query of (Q, h, w) logits: its (H, W) bool mask, and how sure the model is inside it, 0 where it is empty."""
    for part in logits.split(_MASKS_AT_ONCE) if len(logits) else ():
        seen = F.interpolate(part[None], size=padded, mode="bilinear", align_corners=False)
        seen = seen[..., : inner[0], : inner[1]]
        seen = F.interpolate(seen, size=size, mode="bilinear", align_corners=False)[0]
        masks = seen > 0
        inside = (seen.sigmoid() * masks).sum((1, 2)) / (masks.sum((1, 2)) + 1e-6)
        yield from zip(masks.cpu(), inside.cpu(), strict=True)
