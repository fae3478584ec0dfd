"""OWLv2: finds things by name, with a query of its own for each name."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import Owlv2ForObjectDetection
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

from thinkdraw.errors import UserError
from thinkdraw.judges.detectors.labels import (
    DetectionsPerPicture,
    OpenVocabularyDetector,
    best_first,
    check_fractions,
    corners,
)
from thinkdraw.judges.loading import read_image_processor, read_model, read_tokenizer
from thinkdraw.types import Detection

QUERY = "a photo of a {label}"


class Owlv2(OpenVocabularyDetector):
    """Finds named objects with OWLv2; score in 0..1. A box gets the best label.

    path: a folder or a Hugging Face model id. device: auto takes a GPU if there is one. max_pictures: per forward pass.
    threshold: a box counts where its score is above this. max_overlap: of two boxes with the same label and an IoU
    above this, only the surer one stays. None, as published, keeps both.
    Boxes are not clipped to the picture, as published.
    Raises UserError for a checkpoint that is absent, another model, damaged or without tokenizer or image processor;
    without labels; and for a label that is longer than the model reads.
    Minderer et al. 2023 (arXiv 2306.09683); thresholds and query of transformers' `Owlv2Processor` and its examples.
    """

    name = "owlv2"

    def __init__(
        self,
        path: Path | str = "google/owlv2-base-patch16-ensemble",
        device: str = "auto",
        max_pictures: int = 8,
        threshold: float = 0.1,
        max_overlap: float | None = None,
    ):
        super().__init__(path, device, max_pictures)
        check_fractions(self.name, threshold=threshold, max_overlap=max_overlap)
        self.threshold, self.max_overlap = threshold, max_overlap
        self.model = read_model(self.path, {"owlv2": Owlv2ForObjectDetection}).to(self.device)
        self.tokenizer = read_tokenizer(self.path)
        self.image_processor = read_image_processor(self.path, Owlv2ImageProcessorPil)

    def _detect_named(self, pictures: Tensor, labels: Sequence[list[str]]) -> DetectionsPerPicture:
        distinct = {label: k for k, label in enumerate(dict.fromkeys(label for names in labels for label in names))}
        queries = self._embed_queries(list(distinct))
        pixels = self.image_processor(
            list(pictures.numpy()), input_data_format="channels_last", return_tensors="pt"
        ).pixel_values
        features = self.model.image_embedder(pixels.to(self.device))[0]
        patches = features.flatten(1, 2)
        boxes = self.model.box_predictor(patches, features)
        # The processor pads a picture to a square on the right and below, so boxes are fractions of the longer side.
        side = float(max(pictures.shape[1:3]))
        results: DetectionsPerPicture = []
        for features_of_picture, boxes_of_picture, names in zip(patches, boxes.cpu(), labels, strict=True):
            # Each picture is compared with its own queries alone. transformers pads all pictures to the same number of
            # queries, and each padding is a query " " that competes for boxes.
            chosen = queries[[distinct[label] for label in names]]
            logits = self.model.class_predictor(features_of_picture[None], chosen[None])[0][0]
            results.append(self._detections(names, logits.cpu(), boxes_of_picture, side))
        return results

    def _detections(self, labels: list[str], logits: Tensor, boxes: Tensor, side: float) -> list[Detection] | None:
        """List one picture's detections, best first; None = no verdict.

        logits: (N, L). boxes: (N, 4), centre and size, 0..1.
        """
        if not (logits.isfinite().all() and boxes.isfinite().all()):
            return None
        best, which = logits.max(dim=1)
        scores = best.sigmoid()
        sure = scores > self.threshold
        ranked = best_first([labels[k] for k in which[sure]], corners(boxes[sure], (side, side)), scores[sure])
        return ranked if self.max_overlap is None else _without_overlaps(ranked, self.max_overlap)

    def _embed_queries(self, labels: list[str]) -> Tensor:
        """Embed one query per label: (len(labels), D) of unit length."""
        longest = self.model.config.text_config.max_position_embeddings
        texts = [QUERY.format(label=label) for label in labels]
        encoded = self.tokenizer(texts, padding="max_length", max_length=longest, return_tensors=None)
        for label, ids in zip(labels, encoded.input_ids, strict=True):
            if len(ids) > longest:
                raise UserError(
                    f"judge {self.name} reads {longest} tokens and was asked to find {label!r}, which with the query "
                    f"around it is {len(ids)}. Use a shorter name."
                )
        ids, mask = (torch.tensor(encoded[key], device=self.device) for key in ("input_ids", "attention_mask"))
        embeddings = self.model.owlv2.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return torch.nn.functional.normalize(embeddings, dim=-1)


def _without_overlaps(ranked: Sequence[Detection], max_overlap: float) -> list[Detection]:
    """Leave out every box that overlaps a surer one of its label."""
    distinct: list[Detection] = []
    for candidate in ranked:
        if all(d.label != candidate.label or _iou(d.box, candidate.box) <= max_overlap for d in distinct):
            distinct.append(candidate)
    return distinct


def _iou(a: Sequence[float], b: Sequence[float]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0.0) * max(height, 0.0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0
