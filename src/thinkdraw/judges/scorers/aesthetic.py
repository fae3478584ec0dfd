"""LAION's aesthetic predictor: how beautiful a picture is, whatever its prompt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from thinkdraw.errors import UserError
from thinkdraw.judges.loading import find_file, read_weights
from thinkdraw.judges.questioners.pairs import PairScorer
from thinkdraw.judges.scorers.clip import read_model
from thinkdraw.judges.scorers.clip_pixels import resize_and_crop
from thinkdraw.judges.scorers.linear_head import read_head

FILE = "sac+logos+ava1-l14-linearMSE.pth"


class AestheticScorer(PairScorer):
    """Rates how beautiful a picture is, about 1..10: LAION's aesthetic predictor.

    The rating is unbounded, higher = more beautiful; texts are ignored. NaN: an embedding that is not finite.
    path: the published head, or a folder that has it. clip: the `CLIPModel` whose unit-length picture embeddings the
    head reads, a folder or a Hugging Face model id. device: auto takes a GPU if there is one. max_pairs: pictures per
    forward pass.
    Raises UserError for files that are absent, damaged, something else or made for another CLIP.

    Schuhmann 2022, `simple_inference.py` of github.com/christophschuhmann/improved-aesthetic-predictor, with the
    preprocessing of github.com/openai/CLIP.
    """

    name = "aesthetic"

    def __init__(
        self,
        path: Path | str,
        device: str = "auto",
        max_pairs: int = 64,
        clip: str = "openai/clip-vit-large-patch14",
    ):
        super().__init__(str(path), device, max_pairs)
        file = find_file(self.path, FILE)
        head = read_head(str(file), read_weights(file), "layers.")
        clip_model: Any = read_model(clip)
        if head[0].in_features != clip_model.projection_dim:
            raise UserError(
                f"judge {file} reads {head[0].in_features} numbers, and {clip} gives {clip_model.projection_dim}. "
                "Set clip to the CLIP that it was made for."
            )
        modules = {"vision": clip_model.vision_model, "projection": clip_model.visual_projection, "head": head}
        self.model = nn.ModuleDict(modules).to(self.device)
        self.image_size = clip_model.config.vision_config.image_size

    def _compute(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        return self._in_chunks(pictures, self._rate)

    def _rate(self, pictures: Tensor) -> Tensor:
        pixels = resize_and_crop(pictures, self.image_size).to(self.device)
        embeddings = self.model["projection"](self.model["vision"](pixel_values=pixels).pooler_output)
        return self.model["head"](F.normalize(embeddings, dim=-1)).squeeze(-1)
