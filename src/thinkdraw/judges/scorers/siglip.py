"""How well a text fits a picture under SigLIP or SigLIP 2, as a probability."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Siglip2Model, SiglipModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from thinkdraw.judges.loading import read_image_processor, read_model, read_tokenizer
from thinkdraw.judges.questioners.pairs import EmbeddingScorer

MODELS = {"siglip": SiglipModel, "siglip2": Siglip2Model}


class SiglipScorer(EmbeddingScorer):
    """Scores the probability that picture and text belong together, under SigLIP.

    sigmoid(exp(logit_scale) × cosine + logit_bias), in 0..1, higher = fits better. Each pair is scored by itself, and
    most pairs are near 0. NaN: an embedding that is not finite.
    path: a `SiglipModel` (SigLIP, and SigLIP 2 of fixed size) or `Siglip2Model` (SigLIP 2 NaFlex, which keeps the
    picture's proportions), a folder or a Hugging Face model id. device: auto takes a GPU if there is one. max_pairs:
    pictures or texts per forward pass.
    Texts are read as the models were trained: in lower case, padded on the right to the full length without a mask.
    Truncated texts and UserErrors as `ClipScorer`; SigLIP 1's tokenizer needs sentencepiece and protobuf installed.
    Zhai et al. 2023 (arXiv 2303.15343), Tschannen et al. 2025 (arXiv 2502.14786).
    """

    name = "siglip"

    def __init__(
        self, path: Path | str = "google/siglip2-so400m-patch14-384", device: str = "auto", max_pairs: int = 64
    ):
        super().__init__(str(path), device, max_pairs)
        model: Any = read_model(self.path, MODELS)
        self.model = model.to(self.device)
        keeps_proportions = isinstance(model, Siglip2Model)
        pil: Any = Siglip2ImageProcessorPil if keeps_proportions else SiglipImageProcessorPil
        self.tokenizer, self.image_processor = read_tokenizer(self.path), read_image_processor(self.path, pil)
        self.max_tokens = self.model.config.text_config.max_position_embeddings

    def _embed_pictures(self, pictures: Tensor) -> Tensor:
        pixels = self.image_processor(list(pictures.numpy()), return_tensors="pt")
        return self.model.get_image_features(**pixels.to(self.device)).pooler_output

    def _prepare(self, text: str) -> str:
        return text.lower()

    def _embed_texts(self, texts: list[str]) -> Tensor:
        ids = self.tokenizer(
            [self._prepare(text) for text in texts],
            padding="max_length",
            padding_side="right",
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        ).input_ids
        return self.model.get_text_features(input_ids=ids.to(self.device)).pooler_output

    def _scale(self, cosines: Tensor) -> Tensor:
        return torch.sigmoid(self.model.logit_scale.exp().cpu() * cosines + self.model.logit_bias.cpu())
