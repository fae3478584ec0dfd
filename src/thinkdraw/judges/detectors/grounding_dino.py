"""Grounding DINO: finds things by name, with one prompt for all names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import GroundingDinoForObjectDetection, MMGroundingDinoForObjectDetection
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

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

MODELS = {"grounding-dino": GroundingDinoForObjectDetection, "mm-grounding-dino": MMGroundingDinoForObjectDetection}
_PHRASE_ENDS = str.maketrans(".?", "  ")  # the model cuts its prompt into phrases at these marks


class GroundingDino(OpenVocabularyDetector):
    """Finds named objects with Grounding DINO or MM-Grounding-DINO; score in 0..1.

    path: a folder or a Hugging Face model id. device: auto takes a GPU if there is one. max_pictures: per forward pass.
    box_threshold: a box counts where its best prompt token scores above this. text_threshold: the box then gets every
    label whose own tokens score above this, so one box may have two labels. Both defaults are the published ones.
    pooling: how a label's score is made of its tokens' scores, "max" or "mean". T2I-R1 (arXiv 2505.00703) uses "mean"
    over the first and the last word of a name, and 0.3 for both thresholds.
    Labels that differ only in case, full stops or question marks are one label: detections carry the first of them.
    As published, boxes are not clipped to the picture, and overlapping boxes all stay.
    Raises UserError for a checkpoint that is absent, another model, damaged or without tokenizer or image processor;
    without labels; and for labels that together are longer than the model reads.
    Liu et al. 2023 (arXiv 2303.05499), github.com/IDEA-Research/GroundingDINO.
    """

    name = "grounding-dino"

    def __init__(
        self,
        path: Path | str = "IDEA-Research/grounding-dino-tiny",
        device: str = "auto",
        max_pictures: int = 8,
        box_threshold: float = 0.35,
        text_threshold: float = 0.25,
        pooling: Literal["max", "mean"] = "max",
    ):
        super().__init__(path, device, max_pictures)
        check_fractions(self.name, box_threshold=box_threshold, text_threshold=text_threshold)
        if pooling not in ("max", "mean"):
            raise UserError(f"judge {self.name}: pooling={pooling} is unknown. Use max or mean.")
        self.box_threshold, self.text_threshold, self.pooling = box_threshold, text_threshold, pooling
        self.model = read_model(self.path, MODELS).to(self.device)
        self.tokenizer = read_tokenizer(self.path)
        self.image_processor = read_image_processor(self.path, GroundingDinoImageProcessorPil)

    def _detect_named(self, pictures: Tensor, labels: Sequence[list[str]]) -> DetectionsPerPicture:
        prompts = [_distinct_phrases(names) for names in labels]
        texts = ["".join(f"{phrase}. " for phrase in prompt).rstrip() for prompt in prompts]
        encoded = self.tokenizer(texts, padding=True, return_offsets_mapping=True, return_tensors="pt")
        offsets = encoded.pop("offset_mapping")
        self._check_length(encoded.input_ids.shape[1], texts)
        spans = [self._spans(list(prompt), rows) for prompt, rows in zip(prompts, offsets, strict=True)]
        pixels = self.image_processor(list(pictures.numpy()), input_data_format="channels_last", return_tensors="pt")
        out = self.model(**pixels.to(self.device), **encoded.to(self.device))
        lengths = encoded.attention_mask.sum(1).tolist()  # beyond its prompt, a row's logits are −∞
        size = float(pictures.shape[2]), float(pictures.shape[1])
        return [
            self._detections(list(prompt.values()), span, logits[:, :length], boxes, size)
            for prompt, span, logits, length, boxes in zip(
                prompts, spans, out.logits.cpu(), lengths, out.pred_boxes.cpu(), strict=True
            )
        ]

    def _detections(
        self, labels: list[str], spans: Tensor, logits: Tensor, boxes: Tensor, size: tuple[float, float]
    ) -> list[Detection] | None:
        """List one picture's detections, best first; None = no verdict.

        spans: (L, T) bool, each label's tokens. logits: (N, T). boxes: (N, 4), centre and size, 0..1.
        """
        if not (logits.isfinite().all() and boxes.isfinite().all()):
            return None
        tokens = logits.sigmoid()
        spans = spans[:, : tokens.shape[1]]
        if self.pooling == "max":
            scores = torch.stack([tokens[:, span].amax(1) for span in spans], dim=1)
        else:
            scores = tokens @ (spans / spans.sum(1, keepdim=True)).T
        shown = (tokens.amax(1, keepdim=True) > self.box_threshold) & (scores > self.text_threshold)
        rows, columns = shown.nonzero(as_tuple=True)
        return best_first([labels[k] for k in columns], corners(boxes, size)[rows], scores[rows, columns])

    def _spans(self, phrases: list[str], offsets: Tensor) -> Tensor:
        """Mark the tokens of each phrase in the prompt: (L, T) bool.

        offsets: (T, 2), where each token begins and ends in the text.
        """
        spans, start = [], 0
        begins, ends = offsets[:, 0], offsets[:, 1]
        for phrase in phrases:
            stop = start + len(phrase)
            spans.append((begins >= start) & (ends <= stop) & (ends > begins))
            if not spans[-1].any():
                raise UserError(
                    f"judge {self.name} was asked to find {phrase!r}: its tokenizer sees no word in it. Use another name."
                )
            start = stop + len(". ")
        return torch.stack(spans)

    def _check_length(self, num_tokens: int, texts: list[str]) -> None:
        most = self.model.config.max_text_len
        if num_tokens > most:
            raise UserError(
                f"judge {self.name} reads {most} tokens and was asked for names of {num_tokens}: "
                f"{max(texts, key=len)[:60]}… Name fewer objects per picture."
            )


def _distinct_phrases(labels: Sequence[str]) -> dict[str, str]:
    """Map each phrase of the prompt to the label that it stands for."""
    phrases: dict[str, str] = {}
    for label in labels:
        phrases.setdefault(" ".join(label.lower().translate(_PHRASE_ENDS).split()), label)
    return phrases
