"""How well a text fits a picture under a frozen CLIP: the lab's small one, or any `CLIPModel` of transformers."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel, PreTrainedConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils.logging import disable_progress_bar

from thinkdraw.errors import UserError
from thinkdraw.lab import clip_path
from thinkdraw.runtime.device import pick_device


class ClipScorer:
    """Cosine similarity of picture and text embeddings, raw, in −1..1, as a `Scorer`.

    path: a `CLIPModel` folder or a Hugging Face model id. max_pairs: pictures or texts per forward pass.
    A text longer than the model reads is cut there; `num_truncated` counts such texts, and the first one warns.
    Raises UserError for a checkpoint that is absent, no CLIP, damaged or without tokenizer or image processor.
    """

    name = "clip"

    def __init__(self, path: Path | str, device: str = "cpu", max_pairs: int = 256):
        self.path, self.device, self.max_pairs = str(path), pick_device(device), max_pairs
        model: Any = read_model(self.path)
        self.model = model.to(self.device)
        self.tokenizer, self.image_processor = read_processors(self.path)
        self.max_tokens = self.model.config.text_config.max_position_embeddings
        self.num_truncated = 0

    @torch.no_grad()
    def score(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        """pictures: (B, H, W, 3) uint8, resized as the checkpoint says. → (B,) float32 on the CPU."""
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
            raise ValueError(f"pictures of {pictures.dtype} {tuple(pictures.shape)}: expected uint8 (B, H, W, 3).")
        if len(pictures) != len(texts):
            raise ValueError(f"{len(pictures)} pictures and {len(texts)} texts: each pair needs one of both.")
        if not len(texts):
            return torch.zeros(0)
        self._count_truncated(texts)
        distinct = {text: k for k, text in enumerate(dict.fromkeys(texts))}  # a group shares its prompt
        seen = self._embed(pictures.cpu().numpy(), self._see)
        read = self._embed(list(distinct), self._read)
        return (seen * read[[distinct[text] for text in texts]]).sum(-1)

    def _embed(self, items: Any, embed: Any) -> Tensor:
        """(len(items), D) float32 of unit length."""
        parts = [embed(items[i : i + self.max_pairs]) for i in range(0, len(items), self.max_pairs)]
        return torch.nn.functional.normalize(torch.cat(parts).float(), dim=-1).cpu()

    def _see(self, pictures: Any) -> Tensor:
        pixels = self.image_processor(list(pictures), return_tensors="pt").pixel_values
        return self.model.get_image_features(pixels.to(self.device)).pooler_output

    def _read(self, texts: list[str]) -> Tensor:
        ids = self.tokenizer(texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt")
        return self.model.get_text_features(**ids.to(self.device)).pooler_output

    def _count_truncated(self, texts: Sequence[str]) -> None:
        lengths = [len(ids) for ids in self.tokenizer(list(texts), verbose=False).input_ids]
        cut = sum(length > self.max_tokens for length in lengths)
        if cut and not self.num_truncated:
            warnings.warn(
                f"{cut} of {len(texts)} texts are longer than the {self.max_tokens} tokens that {self.path} reads, "
                f"the longest {max(lengths)}: it judges by their beginnings.",
                stacklevel=3,
            )
        self.num_truncated += cut


class LabClipScorer(ClipScorer):
    """`ClipScorer` with the lab's own CLIP, which is shipped."""

    name = "lab-clip"

    def __init__(self, path: Path | str | None = None, device: str = "cpu", max_pairs: int = 256):
        if path is None and not (clip_path() / "config.json").is_file():
            raise UserError(
                f"the lab's CLIP is not in {clip_path()}: make one with `thinkdraw train lab_clip` "
                "and give its folder as path."
            )
        super().__init__(path or clip_path(), device, max_pairs)


def read_model(path: str) -> CLIPModel:
    """CLIPModel in fp32 with every weight present, in eval mode, without gradients."""
    disable_progress_bar()
    folder = Path(path)
    looks_local = folder.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1
    if not (folder / "config.json").is_file() and (folder.is_dir() or looks_local):
        raise UserError(f"judge {path} has no config.json. Give the folder of a CLIPModel or a Hugging Face model id.")
    try:
        model_type = PreTrainedConfig.get_config_dict(path)[0].get("model_type", "none")
        if model_type != "clip":
            raise UserError(f"judge {path} has model_type={model_type}, not clip. Give the folder of a CLIPModel.")
        loaded: Any = CLIPModel.from_pretrained(path, dtype=torch.float32, output_loading_info=True)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(f"judge {path} cannot be read ({_line(error)}). Copy or download it again.") from error
    model, found = loaded
    if missing := sorted(found["missing_keys"]):
        raise UserError(f"judge {path} lacks {len(missing)} weights, {missing[0]} first. Copy or download it again.")
    return model.eval().requires_grad_(False)


def read_processors(path: str) -> tuple[Any, CLIPImageProcessorPil]:
    """The tokenizer and the PIL image processor, whichever other backend is installed."""
    try:
        tokenizer, pictures = AutoTokenizer.from_pretrained(path), CLIPImageProcessorPil.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(f"judge {path}: tokenizer or image processor cannot be read ({_line(error)}).") from error
    if set(tokenizer("a red circle").input_ids) <= set(tokenizer.all_special_ids):
        # transformers makes up an empty tokenizer where there are no files, and every text would be the same
        raise UserError(f"judge {path}: its tokenizer knows no words. Put tokenizer.json beside config.json.")
    return tokenizer, pictures


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".")
