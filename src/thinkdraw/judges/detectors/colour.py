"""GenEval's colour classifier: CLIP picks one of ten colours for an object.

The object is cut out and put on grey before CLIP sees it.
"""

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
    """CLIP has no colour where a rule needs one; it counts as no verdict."""


class ClipColour(FrozenJudge):
    """Names an object's colour, one of ten, by CLIP: GenEval's classifier.

    An object is compared with three sentences for each colour.
    path: a `CLIPModel` folder or a Hugging Face model id. GenEval takes OpenAI's ViT-L/14, in half precision on a GPU;
    this computes in float32. device: auto takes a GPU if there is one. max_crops: per forward pass.
    Raises UserError for a checkpoint that is absent, another model, damaged or without a tokenizer.
    Ghosh et al. 2023 (arXiv 2310.11513).
    """

    name = "clip-colour"

    def __init__(self, path: Path | str = "openai/clip-vit-large-patch14", device: str = "auto", max_crops: int = 64):
        super().__init__(path, device)
        self.max_crops = self.checked_count(max_crops)
        self.model = read_model(self.path, {"clip": CLIPModel}).to(self.device)
        self.tokenizer = read_tokenizer(self.path)
        self.side = self.model.config.vision_config.image_size
        self._queries: dict[str, Tensor] = {}

    def color_of(self, picture: Tensor | np.ndarray) -> Callable[[str, Sequence[Detection]], list[str]]:
        """Return a function that names the colours of objects in one picture.

        picture: (H, W, 3) uint8. The function is the `ColorOf` of `thinkdraw.rewards`: (class name, detections) → a
        colour of `COLORS` for each detection. It raises NoVerdict where CLIP's numbers are not finite or a box holds no
        pixel, and ValueError for a mask whose size is not the picture's.
        """
        pixels = torch.as_tensor(picture).cpu()
        if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[-1] != 3:
            raise ValueError(f"picture of {pixels.dtype} {tuple(pixels.shape)}: expected uint8 (H, W, 3).")
        image = Image.fromarray(pixels.numpy())
        return lambda label, detections: self._colors(image, label, detections)

    @torch.no_grad()
    def logits(self, image: Image.Image, label: str, detections: Sequence[Detection]) -> Tensor:
        """Compare each object with each colour: (N, 10) on the CPU, 100 × cosine."""
        crops = torch.stack([preprocess(cut_out(image, detection), self.side) for detection in detections])
        embeddings = [
            self.model.get_image_features(chunk.to(self.device)).pooler_output for chunk in crops.split(self.max_crops)
        ]
        return (100.0 * torch.nn.functional.normalize(torch.cat(embeddings), dim=-1) @ self._query(label).T).cpu()

    def _colors(self, image: Image.Image, label: str, detections: Sequence[Detection]) -> list[str]:
        if not detections:
            return []
        logits = self.logits(image, label, detections)
        if not logits.isfinite().all():
            raise NoVerdict(f"judge {self.path} gives numbers that are not finite for a {label}.")
        return [COLORS[k] for k in logits.argmax(1).tolist()]

    def _query(self, label: str) -> Tensor:
        """Embed a class name in all colours: (10, D), one direction per colour."""
        if label not in self._queries:
            texts = [template.format(color=color, label=label) for color in COLORS for template in TEMPLATES]
            longest = self.model.config.text_config.max_position_embeddings
            ids = self.tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            directions = torch.nn.functional.normalize(
                self.model.get_text_features(**ids.to(self.device)).pooler_output, dim=-1
            )
            means = directions.unflatten(0, (len(COLORS), len(TEMPLATES))).mean(1)
            self._queries[label] = torch.nn.functional.normalize(means, dim=-1)
        return self._queries[label]


def cut_out(image: Image.Image, detection: Detection) -> Image.Image:
    """Cut an object to its box, on flat grey where it has a mask.

    Box edges are rounded, halves to even.
    """
    if detection.mask is not None:
        if detection.mask.shape != image.size[::-1]:
            raise ValueError(f"mask of {detection.mask.shape} on a picture of {image.size[::-1]} (height, width).")
        blank = Image.new("RGB", image.size, GREY)
        image = Image.composite(image, blank, Image.fromarray(detection.mask.astype(np.uint8) * 255))
    crop = image.crop(detection.box)
    if 0 in crop.size:
        raise NoVerdict(f"the box {detection.box} of a {detection.label} holds no pixel.")
    return crop


def preprocess(crop: Image.Image, side: int) -> Tensor:
    """Prepare a crop for OpenAI's CLIP: (3, side, side) float32, normalised.

    The short side becomes `side` (bicubic), then the centre is cut out. The centre is at round((long − side) / 2),
    halves to even; transformers' processor rounds down instead.
    """
    width, height = crop.size
    short = min(width, height)
    crop = crop.resize((int(side * width / short), int(side * height / short)), Image.Resampling.BICUBIC)
    left, top = round((crop.width - side) / 2), round((crop.height - side) / 2)
    pixels = torch.from_numpy(np.array(crop.crop((left, top, left + side, top + side))))
    return ((pixels / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)
