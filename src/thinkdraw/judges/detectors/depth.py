"""A depth map per picture, as T2I-CompBench++ makes it for its 3D relations."""

from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor, nn

from thinkdraw.errors import UserError
from thinkdraw.judges.detectors.labels import FrozenJudge, check_pictures
from thinkdraw.judges.loading import read_model

SIDE = 480


class DPTForDepthEstimation(transformers.DPTForDepthEstimation):
    """transformers' class without four weights that published checkpoints lack.

    No forward pass uses these weights.
    """

    def __init__(self, config: transformers.DPTConfig):
        super().__init__(config)
        # The first layer has nothing to fuse, so it never runs. Its weights would stay random, and the revision, which
        # hashes all weights, would differ from load to load.
        self.neck.fusion_stage.layers[0].residual_layer1 = nn.Identity()  # type: ignore[union-attr]


class DepthEstimator(FrozenJudge):
    """Estimates how near each pixel is, with DPT; larger means nearer.

    A map is inverse depth, stretched to 0..1 within each picture, so pictures cannot be compared with each other.
    path: a `DPTForDepthEstimation` folder or a Hugging Face model id. device: auto takes a GPU if there is one.
    max_pictures: per forward pass.
    T2I-CompBench computes in half precision on a GPU, this in float32.
    Raises UserError for a checkpoint that is absent, another model or damaged.
    Ranftl et al. 2021 (arXiv 2103.13413); Huang et al. 2025 (arXiv 2307.06350), github.com/Karine-Huang/T2I-CompBench.
    """

    name = "depth"

    def __init__(self, path: Path | str = "Intel/dpt-hybrid-midas", device: str = "auto", max_pictures: int = 8):
        super().__init__(path, device)
        self.max_pictures = self.checked_count(max_pictures)
        self.model = read_model(self.path, {"dpt": DPTForDepthEstimation}).to(self.device)
        if not self.model.config.is_hybrid:
            raise UserError(f"judge {self.path} is a DPT of another kind. Give a hybrid one: Intel/dpt-hybrid-midas.")
        # The model refuses other sizes than it was trained at, although it can stretch its position embeddings to any.
        self.model.dpt.embeddings.image_size = (SIDE, SIDE)

    @torch.no_grad()
    def depth(self, pictures: Tensor) -> Tensor:
        """Map pictures to inverse depth: (B, H, W, 3) uint8 → (B, H, W) float32.

        The maps are on the CPU, in steps of 1/255 as T2I-CompBench stores them.
        A map is NaN throughout (no verdict) where the model gives a number that is not finite, and where it is flat: a
        flat map says nothing about nearer and farther.
        """
        check_pictures(pictures)
        maps = torch.empty(pictures.shape[:3])
        for i in range(0, len(pictures), self.max_pictures):
            chunk = torch.stack([preprocess(picture) for picture in pictures[i : i + self.max_pictures].cpu().numpy()])
            raw = self.model(chunk.to(self.device)).predicted_depth.cpu()
            maps[i : i + len(raw)] = _stretch_to_8_bits(raw, (pictures.shape[1], pictures.shape[2]))
        return maps


def preprocess(picture: np.ndarray) -> Tensor:
    """Squash a picture to a square, bilinear: (3, 480, 480) in −1..1."""
    image = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - 0.5) / 0.5


def _stretch_to_8_bits(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """Stretch each map to 0..1 and cut it to 8 bits: (B, h, w) → (B, H, W)."""
    low, high = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
    near = (raw - low) / (high - low)  # NaN where flat or not finite
    broken = ~near.isfinite().all(2).all(1)
    near = torch.nn.functional.interpolate(near[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]
    stored = (near * 255).floor().clamp(0, 255) / 255
    stored[broken] = torch.nan
    return stored
