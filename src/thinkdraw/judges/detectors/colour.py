"""The colour of an object as GenEval asks for it: a CLIP chooses among ten colours for the object cut out on grey."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel

from thinkdraw.judges.detectors.labels import FrozenJudge
from thinkdraw.judges.loading import read_model, read_tokenizer
from thinkdraw.types import Detection

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {color} {label}", "a photo of a {color}-colored {label}", "a photo of a {color} object")
GREY = (153, 153, 153)
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


class NoVerdict(Exception):
    """Raised where a rule needs a colour and CLIP has none: whoever judges the picture counts it as no verdict."""


class ClipColour(FrozenJudge):
    """GenEval's colour classifier: the nearest of ten colours by CLIP, over three templates.

    path: a `CLIPModel` folder or a Hugging Face model id; GenEval takes OpenAI's ViT-L/14, in half precision on a GPU,
    where this computes in float32. max_crops: per forward pass.
    Raises UserError for a checkpoint that is absent, another model, damaged or without a tokenizer.
    Ghosh et al. 2023 (arXiv 2310.11513).
    """

    name = "clip-colour"

    def __init__(self, path: Path | str = "openai/clip-vit-large-patch14", device: str = "auto", max_crops: int = 64):
        super().__init__(path, device)
        self.max_crops = self.at_once(max_crops)
        self.model = read_model(self.path, {"clip": CLIPModel}).to(self.device)
        self.tokenizer = read_tokenizer(self.path)
        self.side = self.model.config.vision_config.image_size
        self._queries: dict[str, Tensor] = {}

    def color_of(self, picture: Tensor | np.ndarray) -> Callable[[str, Sequence[Detection]], list[str]]:
        """The `ColorOf` of one picture, for the rules of `thinkdraw.rewards`. picture: (H, W, 3) uint8.

        (class name, detections) → a colour of `COLORS` for each. Raises NoVerdict where CLIP's numbers are not finite
        and where a box holds no pixel; ValueError for a mask of another size than the picture.
        """
        pixels = torch.as_tensor(picture).cpu()
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
            raise ValueError(f"picture of {pixels.dtype} {tuple(pixels.shape)}: expected uint8 (H, W, 3).")
        image = Image.fromarray(pixels.numpy())
        return lambda label, detections: self._colors(image, label, detections)

    @torch.no_grad()
    def logits(self, image: Image.Image, label: str, detections: Sequence[Detection]) -> Tensor:
        """(N, 10) on the CPU, 100 × cosine of each object with each of `COLORS`."""
        crops = torch.stack([see(cut_out(image, detection), self.side) for detection in detections])
        seen = [
            self.model.get_image_features(part.to(self.device)).pooler_output for part in crops.split(self.max_crops)
        ]
        return (100.0 * torch.nn.functional.normalize(torch.cat(seen), dim=-1) @ self._query(label).T).cpu()

    def _colors(self, image: Image.Image, label: str, detections: Sequence[Detection]) -> list[str]:
        if not detections:
            return []
        logits = self.logits(image, label, detections)
        if not logits.isfinite().all():
            raise NoVerdict(f"judge {self.path} gives numbers that are not finite for a {label}.")
        return [COLORS[k] for k in logits.argmax(1).tolist()]

    def _query(self, label: str) -> Tensor:
        """(10, D), one direction per colour."""
        if label not in self._queries:
            texts = [template.format(color=color, label=label) for color in COLORS for template in TEMPLATES]
            longest = self.model.config.text_config.max_position_embeddings
            ids = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            read = self.model.get_text_features(**ids.to(self.device)).pooler_output
            read = torch.nn.functional.normalize(read, dim=-1).unflatten(0, (len(COLORS), len(TEMPLATES))).mean(1)
            self._queries[label] = torch.nn.functional.normalize(read, dim=-1)
        return self._queries[label]


def cut_out(image: Image.Image, detection: Detection) -> Image.Image:
    """The object on flat grey, cut to its box; box edges are rounded, halves to even. Without a mask, the box as it is."""
    if detection.mask is not None:
        if detection.mask.shape != image.size[::-1]:
            raise ValueError(f"mask of {detection.mask.shape} on a picture of {image.size[::-1]} (height, width).")
        blank = Image.new("RGB", image.size, GREY)
        image = Image.composite(image, blank, Image.fromarray(detection.mask.astype(np.uint8) * 255))
    crop = image.crop(detection.box)
    if 0 in crop.size:
        raise NoVerdict(f"the box {detection.box} of a {detection.label} holds no pixel.")
    return crop


def see(crop: Image.Image, side: int) -> Tensor:
    """(3, side, side) float32 as OpenAI's CLIP sees it: short side to `side`, bicubic; centre cut out; normalised.

    The centre is at round((long − side) / 2), halves to even, where transformers' processor rounds down.
    """
    width, height = crop.size
    short = min(width, height)
    crop = crop.resize((int(side * width / short), int(side * height / short)), Image.Resampling.BICUBIC)
    left, top = round((crop.width - side) / 2), round((crop.height - side) / 2)
    pixels = torch.from_numpy(np.array(crop.crop((left, top, left + side, top + side))))
    return ((pixels / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)
