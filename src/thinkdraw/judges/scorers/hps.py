"""HPS v2.1: which picture of a prompt people prefer; needs no open_clip."""

import html
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from thinkdraw.errors import UserError
from thinkdraw.judges.loading import fill_model, find_file, read_tokenizer, read_weights
from thinkdraw.judges.questioners.pairs import EmbeddingScorer
from thinkdraw.judges.scorers.clip_pixels import normalise
from thinkdraw.judges.scorers.hps_weights import infer_config, rename

FILE = "HPS_v2.1_compressed.pt"
VISION_HEAD, TEXT_HEAD = 80, 64  # dimensions per attention head of ViT-H-14
_STRAIGHT = str.maketrans({**dict.fromkeys("ʼ‘’‚‛", "'"), **dict.fromkeys("“”„‟", '"')})


class HpsScorer(EmbeddingScorer):
    """Scores which picture of a prompt people prefer: HPS v2.1, in −1..1.

    The cosine of picture and text embeddings, higher = preferred; only comparable between pictures of one prompt.
    NaN: an embedding that is not finite.
    path: the published file, or a folder or a Hugging Face model that has it. tokenizer: folder or model id of CLIP's
    byte-pair vocabulary. device: auto takes a GPU if there is one. max_pairs: pictures or texts per forward pass. A
    text of more than 77 tokens is cut there; `num_truncated` counts such texts, and the first one warns.
    Raises UserError for a file that is absent, damaged or no CLIP in open_clip's names, and for another tokenizer.

    Wu et al. 2023 (arXiv 2306.09341). Model, preprocessing and `score` of github.com/tgxs002/HPSv2, in float32 where
    that uses autocast. Its tokenizer also repairs wrongly decoded characters (ftfy), which is not done here.
    """

    name = "hps"

    def __init__(
        self,
        path: Path | str = "xswu/HPSv2",
        device: str = "auto",
        max_pairs: int = 64,
        tokenizer: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    ):
        super().__init__(str(path), device, max_pairs)
        file = find_file(self.path, FILE)
        weights = read_weights(file)
        try:
            config = infer_config(weights, VISION_HEAD, TEXT_HEAD, hidden_act="gelu")
            renamed = rename(weights)
        except KeyError as error:
            raise UserError(f"judge {file} is no CLIP in open_clip's names ({error}). Give HPS's {FILE}.") from error
        self.model = fill_model(str(file), CLIPModel, config, renamed).to(self.device)
        self.tokenizer, text_config = read_tokenizer(tokenizer), self.model.config.text_config
        if self.tokenizer.eos_token_id != text_config.eos_token_id:
            raise UserError(
                f"judge {file} ends a text with token {text_config.eos_token_id}, the tokenizer of {tokenizer} with "
                f"{self.tokenizer.eos_token_id}. Give the tokenizer of laion/CLIP-ViT-H-14-laion2B-s32B-b79K."
            )
        self.max_tokens = text_config.max_position_embeddings

    def _embed_pictures(self, pictures: Tensor) -> Tensor:
        pixels = resize_and_pad(pictures, self.model.config.vision_config.image_size)
        return self.model.get_image_features(pixels.to(self.device)).pooler_output

    def _prepare(self, text: str) -> str:
        return html.unescape(html.unescape(text.translate(_STRAIGHT)))

    def _embed_texts(self, texts: list[str]) -> Tensor:
        prepared = [self._prepare(text) for text in texts]
        ids = self.tokenizer(prepared, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return self.model.get_text_features(**ids.to(self.device)).pooler_output


def resize_and_pad(pictures: Tensor, size: int) -> Tensor:
    """Resize the longer side to `size` and pad the shorter one with black.

    uint8 pictures (B, H, W, 3) → float32 pixels (B, 3, size, size). As `ResizeMaxSize` of HPSv2's
    open_clip/transform.py, which resizes tensors, not pictures: bicubic overshoot stays in, and it filters against
    aliasing (torchvision's default since 0.17). That source does not pad a picture whose longer side is `size` already,
    and its model refuses such a picture unless it is square; here it is padded.
    """
    height, width = pictures.shape[1:3]
    scale = size / max(height, width)
    new_height, new_width = round(height * scale), round(width * scale)
    pixels = pictures.permute(0, 3, 1, 2).float() / 255
    if (new_height, new_width) != (height, width):
        pixels = F.interpolate(pixels, (new_height, new_width), mode="bicubic", align_corners=False, antialias=True)
    left, top = (size - new_width) // 2, (size - new_height) // 2
    return normalise(F.pad(pixels, (left, size - new_width - left, top, size - new_height - top)))
