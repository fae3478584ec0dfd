"""Mask2Former as GenEval's detector: COCO's 80 classes, masks from raw logits.

Every step is that of mmdet 2.x, which GenEval (arXiv 2310.11513) runs. transformers' own processor and post-processing
differ: they resize to a 384-pixel square, cut masks at 384 pixels and enlarge them without smoothing.
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
from thinkdraw.judges.detectors.labels import DetectionsPerPicture, FrozenDetector, check_fractions
from thinkdraw.judges.loading import read_model
from thinkdraw.types import Detection

NUM_CLASSES = 80
MAX_DETECTIONS = 100
DIVISOR = 32
PADDING = 128.0  # grey, before the mean is subtracted
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
_MASKS_AT_ONCE = 25  # masks enlarged together, so that memory stays near 100 MB per picture


class Mask2FormerForUniversalSegmentation(transformers.Mask2FormerForUniversalSegmentation):
    """transformers' class, without a complaint about a layer norm that nobody uses.

    Published checkpoints lack this layer norm of the backbone, and no forward pass uses it.
    """

    _keys_to_ignore_on_load_missing = [r"swin\.layernorm\."]


class Mask2Former(FrozenDetector):
    """Finds objects of COCO's 80 classes, with masks, by Mask2Former; score in 0..1.

    A picture has at most 100 detections. score: class probability × mean sigmoid inside the mask, higher = surer. One
    object may be found under several classes.
    path: a folder or a Hugging Face model id. GenEval's own weights come from another training run of this architecture
    and transformers cannot load them. Scores made with this judge therefore carry its name.
    device: auto takes a GPU if there is one. max_pictures: per forward pass. names_file: GenEval's object_names.txt, a
    name per line in COCO's order. Without it the names are the checkpoint's, whose spelling may differ ("tv" or
    "tvmonitor").
    min_score: detections below are left out, which saves most of the masks' memory; GenEval uses those above 0.3.
    short_side, long_side: a picture is scaled to fit into these; the defaults are GenEval's.
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
                f"judge {self.name}: short_side={short_side} and long_side={long_side}: both must be at least 1, and "
                "short_side must not be the larger."
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
                f"names_file={names_file} has {len(names)} lines and {len(set(names) - {''})} distinct names, but "
                f"it must name COCO's {NUM_CLASSES} classes in their order. Give GenEval's object_names.txt."
            )
        return names

    def _detect_chunk(self, pictures: Tensor, labels: Sequence[list[str] | None]) -> DetectionsPerPicture:
        self._check_known(labels)
        pixels, inner = preprocess(pictures, self.short_side, self.long_side)
        out = self.model(pixels.to(self.device))
        padded, size = (pixels.shape[2], pixels.shape[3]), (pictures.shape[1], pictures.shape[2])
        results: DetectionsPerPicture = []
        for classes, masks, names in zip(out.class_queries_logits, out.masks_queries_logits, labels, strict=True):
            if classes.isfinite().all() and masks.isfinite().all():
                results.append(self._detections(classes, masks, padded, inner, size, names))
            else:
                results.append(None)
        return results

    def _detections(
        self,
        classes: Tensor,
        masks: Tensor,
        padded: tuple[int, int],
        inner: tuple[int, int],
        size: tuple[int, int],
        labels: list[str] | None,
    ) -> list[Detection]:
        """List one picture's detections of `labels` (None = all), best first.

        classes: (Q, 81) logits. masks: (Q, h, w) logits. padded, inner, size: (height, width) of the model's input, of
        the picture inside it, and of the picture as given.
        """
        probabilities = classes.softmax(-1)[:, :-1].flatten()
        best = probabilities.topk(min(MAX_DETECTIONS, len(probabilities)))
        pairs = [(i // NUM_CLASSES, self.names[i % NUM_CLASSES]) for i in best.indices.tolist()]
        chosen = [k for k, (_, name) in enumerate(pairs) if labels is None or name in labels]
        queries = sorted({pairs[k][0] for k in chosen})
        shapes = dict(zip(queries, _shapes(masks[queries], padded, inner, size), strict=True))
        detections = []
        for k in chosen:
            query, name = pairs[k]
            mask, mask_score = shapes[query]
            score = float(best.values[k].cpu() * mask_score)
            if score >= self.min_score:
                detections.append(Detection(name, tight_box(mask), score, mask=mask.numpy().copy()))
        return sorted(detections, key=lambda d: -d.score)

    def _check_known(self, labels: Sequence[list[str] | None]) -> None:
        for name in {name for names in labels for name in names or ()} - set(self.names):
            near = difflib.get_close_matches(name, self.names, n=2, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it knows {', '.join(self.names[:5])} …"
            raise UserError(
                f"judge {self.name} has no name {name!r}: {hint} names_file gives its {NUM_CLASSES} classes GenEval's "
                "names. For other things use a detector that finds any name, such as grounding-dino."
            )


def preprocess(pictures: Tensor, short_side: int, long_side: int) -> tuple[Tensor, tuple[int, int]]:
    """Scale, pad and normalise pictures: (B, H, W, 3) uint8 → (B, 3, h, w) float32.

    Returns the pixels and the (height, width) of the picture inside them.
    A picture is scaled to fit into (short_side, long_side), bilinear without antialiasing: this is OpenCV's
    INTER_LINEAR up to one of 256 levels. It is padded with grey on the right and below to multiples of 32, then
    normalised.
    """
    height, width = pictures.shape[1:3]
    scale = min(long_side / max(height, width), short_side / min(height, width))
    inner = (max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1))
    pixels = pictures.permute(0, 3, 1, 2).float()
    pixels = F.interpolate(pixels, size=inner, mode="bilinear", align_corners=False).round()
    pixels = F.pad(pixels, (0, -inner[1] % DIVISOR, 0, -inner[0] % DIVISOR), value=PADDING)
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1), inner


def tight_box(mask: Tensor) -> tuple[float, float, float, float]:
    """Return the box (x1, y1, x2, y2) around the True pixels of a mask (H, W).

    The right and lower edges are exclusive; all four are 0 where no pixel is True.
    """
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def _shapes(
    logits: Tensor, padded: tuple[int, int], inner: tuple[int, int], size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each query's mask (H, W) bool and the model's mean certainty inside it.

    logits: (Q, h, w). The certainty is 0 where the mask is empty.
    """
    for chunk in logits.split(_MASKS_AT_ONCE) if len(logits) else ():
        # Two resizes, as in mmdet: to the padded input, whose padding is cut off, then to the picture.
        enlarged = F.interpolate(chunk[None], size=padded, mode="bilinear", align_corners=False)
        enlarged = enlarged[..., : inner[0], : inner[1]]
        enlarged = F.interpolate(enlarged, size=size, mode="bilinear", align_corners=False)[0]
        masks = enlarged > 0
        inside = (enlarged.sigmoid() * masks).sum((1, 2)) / (masks.sum((1, 2)) + 1e-6)
        yield from zip(masks.cpu(), inside.cpu(), strict=True)
