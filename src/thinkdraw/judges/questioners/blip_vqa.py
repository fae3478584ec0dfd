"""BLIP's visual question answering: T2I-CompBench's judge of attributes."""

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from transformers import BlipForQuestionAnswering
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from thinkdraw.judges.loading import digest, read_image_processor, read_model, read_tokenizer
from thinkdraw.judges.questioners.vqa import VqaJudge
from thinkdraw.judges.questioners.yes_no import single_token
from thinkdraw.runtime.device import pick_device

MAX_WORDS, MAX_TOKENS = 50, 35
_IGNORED_MARKS = re.compile(r"[.!\"()*#:;~]")


class BlipVqaJudge(VqaJudge):
    """Answers yes-or-no questions with BLIP, as T2I-CompBench does; gives P(yes).

    P(yes) = p(yes) / (p(yes) + p(no)) of the answer's first token, in 0..1, never rounded.
    The question ("a green bench?") is lower-cased, loses . ! " ( ) * # : ; ~ and is cut to 50 words and 35 tokens. Its
    first token becomes [ENC], which transformers' class leaves to the caller. The text encoder reads it beside the
    picture. The text decoder starts with [DEC] alone; the two words' probabilities are those of its next token.

    path: a `BlipForQuestionAnswering` folder or Hugging Face model id. image_size: side of the square that a picture
    becomes (bicubic, CLIP's mean and deviation); None takes the checkpoint's. The benchmark uses 480; the published
    conversion was made for 384, so position embeddings are interpolated. device: auto takes a GPU if there is one.
    max_pairs: (picture, question) pairs per pass.
    Raises UserError for a checkpoint that is absent, damaged, of another kind, or without yes or no.
    Huang et al. 2023 (arXiv 2307.06350); Li et al. 2022 (arXiv 2201.12086).
    """

    name = "blip-vqa"

    def __init__(
        self,
        path: str = "Salesforce/blip-vqa-capfilt-large",
        device: str = "auto",
        image_size: int | None = 480,
        max_pairs: int = 64,
    ):
        self.path, self.device, self.max_pairs = str(path), pick_device(device), max_pairs
        self.model = read_model(self.path, {"blip": BlipForQuestionAnswering}).to(self.device)
        self.tokenizer = read_tokenizer(self.path)
        self.image_processor = read_image_processor(self.path, BlipImageProcessorPil)
        side = image_size or self.model.config.vision_config.image_size
        self.size = {"height": side, "width": side}
        self.yes, self.no = (single_token(self.tokenizer, word, self.path) for word in ("yes", "no"))
        self.dec = self.model.config.text_config.bos_token_id
        self.enc = self.dec + 1  # [DEC] and [ENC] end BERT's vocabulary; no file of the checkpoint names [ENC]

    @cached_property
    def revision(self) -> str:
        """Short hash of the weights and of the size at which pictures are seen."""
        return digest(f"{self.name} {self.size}", self.model)

    def _answer(self, pictures: np.ndarray, questions: Sequence[str]) -> Tensor:
        embeddings = self._embed_pictures(pictures)
        ids = [self._ids(question) for question in questions]
        p = torch.empty(len(ids))
        # Questions of one length at a time: transformers' BLIP (5.23) does not hand the mask of a padded question to the
        # cross-attention of its decoder, which then looks at the padding.
        for length in set(map(len, ids)):
            rows = [row for row, tokens in enumerate(ids) if len(tokens) == length]
            same_length = torch.tensor([ids[row] for row in rows], device=self.device)
            p[rows] = self._p_yes_of_embeddings(same_length, embeddings[rows])
        return p

    def _p_yes_of_embeddings(self, ids: Tensor, embeddings: Tensor) -> Tensor:
        """Answer questions (B, L) about image embeddings (B, patches + 1, D): (B,)."""
        question = self.model.text_encoder(input_ids=ids, encoder_hidden_states=embeddings).last_hidden_state
        begin = torch.full((len(ids), 1), self.dec, device=self.device)
        logits = self.model.text_decoder(input_ids=begin, encoder_hidden_states=question).logits[:, 0]
        return self.p_yes(logits)

    def _ids(self, question: str) -> list[int]:
        ids = self.tokenizer(plain_question(question), truncation=True, max_length=MAX_TOKENS).input_ids
        return [self.enc, *ids[1:]]

    def _embed_pictures(self, pictures: np.ndarray) -> Tensor:
        """Embed pictures: (B, patches + 1, D); equal pictures are embedded once."""
        distinct: dict[bytes, int] = {}
        index = [distinct.setdefault(picture.tobytes(), len(distinct)) for picture in pictures]
        firsts = [pictures[index.index(k)] for k in range(len(distinct))]
        pixels = self.image_processor(firsts, size=self.size, return_tensors="pt").pixel_values
        return self.model.vision_model(pixels.to(self.device), interpolate_pos_encoding=True).last_hidden_state[index]


def plain_question(text: str) -> str:
    """Put a question into the form that BLIP was trained to read."""
    return " ".join(_IGNORED_MARKS.sub("", text.lower()).rstrip(" ").split(" ")[:MAX_WORDS])
