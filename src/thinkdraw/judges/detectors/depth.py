"""How near things are: one map per picture, as T2I-CompBench++ makes it for its 3D relations."""

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
    """transformers' class without four weights that no forward pass uses and published checkpoints lack."""

    def __init__(self, config: transformers.DPTConfig):
        super().__init__(config)
        # The first layer has nothing to fuse yet. Left in, these would be random, and the revision with them.
        self.neck.fusion_stage.layers[0].residual_layer1 = nn.Identity()  # type: ignore[union-attr]


class DepthEstimator(FrozenJudge):
    """Inverse depth by DPT: **larger = nearer**, 0..1 within each picture, so not comparable between pictures.

    path: a `DPTForDepthEstimation` folder or a Hugging Face model id. max_pictures: per forward pass.
    T2I-CompBench computes in half precision on a GPU, this in float32.
    Raises UserError for a checkpoint that is absent, another model or damaged.
    Ranftl et al. 2021 (arXiv 2103.13413); Huang et al. 2025 (arXiv 2307.06350), github.com/Karine-Huang/T2I-CompBench.
    """

    name = "depth"

    def __init__(self, path: Path | str = "Intel/dpt-hybrid-midas", device: str = "auto", max_pictures: int = 8):
        super().__init__(path, device)
        self.max_pictures = self.at_once(max_pictures)
        self.model = read_model(self.path, {"dpt": DPTForDepthEstimation}).to(self.device)
        if not self.model.config.is_hybrid:
            raise UserError(f"judge {self.path} is a DPT of another kind. Give a hybrid one: Intel/dpt-hybrid-midas.")
        # It refuses sizes other than its training's, though it stretches its position embeddings to any.
        self.model.dpt.embeddings.image_size = (SIDE, SIDE)

    @torch.no_grad()
    def depth(self, pictures: Tensor) -> Tensor:
        """(B, H, W, 3) uint8 → (B, H, W) float32 on the CPU, in steps of 1/255 as T2I-CompBench stores it.

        A map is NaN throughout, no verdict, where the model gives a number that is not finite or a flat map, which
        has no nearer and farther.
        """
        check_pictures(pictures)
        maps = torch.empty(pictures.shape[:3])
        for i in range(0, len(pictures), self.max_pictures):
            seen = torch.stack([see(picture) for picture in pictures[i : i + self.max_pictures].cpu().numpy()])
            raw = self.model(seen.to(self.device)).predicted_depth.cpu()
            maps[i : i + len(raw)] = _as_stored(raw, (pictures.shape[1], pictures.shape[2]))
        return maps


def see(picture: np.ndarray) -> Tensor:
    """(3, 480, 480) in −1..1: squashed to a square, bilinear."""
    image = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255 - 0.5) / 0.5


def _as_stored(raw: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, h, w) of any range → (B, H, W) in 0..1, stretched per picture, then cut to 8 bits."""
    low, high = raw.amin((1, 2), keepdim=True), raw.amax((1, 2), keepdim=True)
    near = (raw - low) / (high - low)  # NaN where flat or not finite
    broken = ~near.isfinite().all(2).all(1)
    near = torch.nn.functional.interpolate(near[:, None], size=size, mode="bilinear", align_corners=True)[:, 0]
    stored = (near * 255).floor().clamp(0, 255) / 255
    stored[broken] = torch.nan
    return stored
