"""How well a text fits a picture: any `CLIPModel`, the lab's CLIP, PickScore."""

from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPModel, PreTrainedTokenizerBase
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from thinkdraw.errors import UserError
from thinkdraw.judges import loading
from thinkdraw.judges.questioners.pairs import EmbeddingScorer
from thinkdraw.lab import clip_path


class ClipScorer(EmbeddingScorer):
    """Scores how well a text fits a picture: the cosine of their CLIP embeddings.

    Raw, in −1..1, higher = fits better. NaN: an embedding that is not finite.
    path: a `CLIPModel` folder or a Hugging Face model id. device: auto takes a GPU if there is one. max_pairs: pictures
    or texts per forward pass.
    processor: folder or model id of tokenizer and image processor, where that is not `path`.
    A text longer than the model reads is cut there; `num_truncated` counts such texts, and the first one warns.
    Raises UserError for a checkpoint that is absent, no CLIP, damaged or without tokenizer or image processor.
    Radford et al. 2021 (arXiv 2103.00020); CLIPScore (arXiv 2104.08718) is this number, cut at 0, times 2.5.
    """

    name = "clip"

    def __init__(self, path: Path | str, device: str = "auto", max_pairs: int = 256, processor: str | None = None):
        super().__init__(str(path), device, max_pairs)
        model: Any = read_model(self.path)
        self.model = model.to(self.device)
        self.tokenizer, self.image_processor = read_processors(processor or self.path)
        self.max_tokens = self.model.config.text_config.max_position_embeddings

    def _embed_pictures(self, pictures: Tensor) -> Tensor:
        pixels = self.image_processor(list(pictures.numpy()), return_tensors="pt").pixel_values
        return self.model.get_image_features(pixels.to(self.device)).pooler_output

    def _embed_texts(self, texts: list[str]) -> Tensor:
        ids = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return self.model.get_text_features(**ids.to(self.device)).pooler_output


class LabClipScorer(ClipScorer):
    """Scores how well a text fits a lab picture, with the small CLIP in the package.

    path: another CLIP's folder; None takes the lab's. device, max_pairs: as `ClipScorer`.
    """

    name = "lab-clip"

    def __init__(self, path: Path | str | None = None, device: str = "auto", max_pairs: int = 256):
        if path is None and not (clip_path() / "config.json").is_file():
            raise UserError(
                f"the lab's CLIP is not in {clip_path()}. Make one with `thinkdraw train lab_clip` "
                "and give its folder as path."
            )
        super().__init__(path or clip_path(), device, max_pairs)


class PickScorer(ClipScorer):
    """Scores which picture of a prompt people would pick: PickScore.

    exp(logit_scale) × cosine, so within ±exp(logit_scale); higher = people would pick it. Made to compare pictures of
    one prompt: a softmax over their scores is the probability that each is picked.
    path: PickScore_v1's `CLIPModel`. processor: folder or model id of its tokenizer and image processor; the default is
    the published one. device, max_pairs, NaN and UserErrors as `ClipScorer`.
    Kirstain et al. 2023 (arXiv 2305.01569), github.com/yuvalkirstain/PickScore.
    """

    name = "pickscore"

    def __init__(
        self,
        path: Path | str = "yuvalkirstain/PickScore_v1",
        device: str = "auto",
        max_pairs: int = 64,
        processor: str = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    ):
        super().__init__(path, device, max_pairs, processor)

    def _scale(self, cosines: Tensor) -> Tensor:
        return self.model.logit_scale.exp().cpu() * cosines


def read_model(path: str) -> CLIPModel:
    """Read a `CLIPModel` in fp32, in eval mode, without gradients."""
    return loading.read_model(path, {"clip": CLIPModel})


def read_processors(path: str) -> tuple[PreTrainedTokenizerBase, CLIPImageProcessorPil]:
    """Read the tokenizer and the PIL image processor, whatever else is installed."""
    return loading.read_tokenizer(path), loading.read_image_processor(path, CLIPImageProcessorPil)
