"""ImageReward v1.0: how much people would like a picture for its prompt.

It runs on transformers' BLIP parts.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from thinkdraw.errors import UserError
from thinkdraw.judges.loading import fill_model, find_file, read_tokenizer, read_weights
from thinkdraw.judges.questioners.blip_weights import infer_text, infer_vision, rename_vision
from thinkdraw.judges.questioners.pairs import PairScorer
from thinkdraw.judges.scorers.clip_pixels import resize_and_crop
from thinkdraw.judges.scorers.linear_head import read_head

FILE = "ImageReward.pt"
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # as published
MAX_TOKENS = 35
_VISION, _TEXT, _MLP = "blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."


class ImageRewardScorer(PairScorer):
    """Scores how much people would like a picture for its prompt: ImageReward v1.0.

    (The model's number − MEAN) / STD, unbounded, higher = better. NaN: a number that is not finite.
    path: the published file, or a folder or a Hugging Face model that has it. tokenizer: folder or model id of uncased
    BERT's.
    device: auto takes a GPU if there is one. max_pairs: pairs per forward pass. A text of more than 35 tokens is cut
    there; `num_truncated` counts such texts, and the first one warns. Weights that the score does not use are not read.
    Raises UserError for a file that is absent, damaged, something else or lacks weights, and for another tokenizer.

    Xu et al. 2023 (arXiv 2304.05977), `ImageReward.py` and `models/BLIP` of github.com/THUDM/ImageReward, with the
    preprocessing of github.com/openai/CLIP.
    """

    name = "imagereward"

    def __init__(
        self,
        path: Path | str = "THUDM/ImageReward",
        device: str = "auto",
        max_pairs: int = 64,
        tokenizer: str = "google-bert/bert-base-uncased",
    ):
        super().__init__(str(path), device, max_pairs)
        file = find_file(self.path, FILE)
        self.model = read_blip(str(file), read_weights(file)).to(self.device)
        self.tokenizer, self.max_tokens = read_tokenizer(tokenizer), MAX_TOKENS
        known = self.model["text"].config.vocab_size
        if self.tokenizer.cls_token_id is None or max(self.tokenizer.get_vocab().values()) >= known:
            raise UserError(
                f"judge {file} knows {known} tokens and needs a [CLS] token; tokenizer {tokenizer} has "
                f"{len(self.tokenizer)} and cls_token={self.tokenizer.cls_token}. Give the one of bert-base-uncased."
            )

    def _compute(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        self._count_truncated(texts)
        step = self.max_pairs
        starts = range(0, len(texts), step)
        return torch.cat([self._judge(pictures[i : i + step], list(texts[i : i + step])) for i in starts])

    def _judge(self, pictures: Tensor, texts: list[str]) -> Tensor:
        pixels = resize_and_crop(pictures, self.model["vision"].config.image_size).to(self.device)
        patches = self.model["vision"](pixel_values=pixels).last_hidden_state
        encoded = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        words = self.model["text"](
            input_ids=encoded.input_ids.to(self.device),
            attention_mask=encoded.attention_mask.to(self.device),
            encoder_hidden_states=patches,
        )
        return (self.model["mlp"](words.last_hidden_state[:, 0]).squeeze(-1) - MEAN) / STD


def read_blip(path: str, weights: dict[str, Tensor]) -> nn.ModuleDict:
    """Make picture encoder, text encoder and head from weights in the published names.

    The text encoder attends to the picture encoder's output.
    """
    of_vision = {n.removeprefix(_VISION): w for n, w in weights.items() if n.startswith(_VISION)}
    of_text = {n.removeprefix(_TEXT): w for n, w in weights.items() if n.startswith(_TEXT)}
    of_text.pop("embeddings.position_ids", None)  # no weight: 0, 1, 2 …
    try:
        vision_config, text_config = infer_vision(of_vision), infer_text(of_text)
        of_vision = rename_vision(of_vision)
    except KeyError as error:
        raise UserError(f"judge {path} is no ImageReward ({error}). Give the published {FILE}.") from error
    vision = fill_model(path, BlipVisionModel, vision_config, of_vision)
    text = fill_model(path, BlipTextModel, text_config, of_text, add_pooling_layer=False)
    return nn.ModuleDict({"vision": vision, "text": text, "mlp": read_head(path, weights, _MLP)})
