"""Any local image-text-to-text model of transformers as a judge: Qwen-VL, LLaVA-OneVision, Janus and their like."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.images import to_pil
from thinkdraw.judges.loading import digest
from thinkdraw.judges.questioners.picture_chat import read_chat_model
from thinkdraw.judges.questioners.yes_no import (
    QUESTION_FORMAT,
    asked,
    check_pairs,
    check_question_format,
    p_yes,
    yes_no_ids,
)
from thinkdraw.runtime.chat.thoughts import without_last_word, without_thoughts
from thinkdraw.runtime.control_tokens import token_escaper
from thinkdraw.runtime.device import pick_device
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Request

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class VlmJudge:
    """`Questioner` and `Writer` from a frozen chat model that sees pictures.

    P(yes) = p(yes) / (p(yes) + p(no)), each summed over all tokens that spell the word (yes, Yes, " yes", …), at the
    first token of the reply, from one forward pass. NaN where both together have less than `min_yes_no_mass`: the
    model meant to say something else. As in VQAScore (Lin et al. 2024, arXiv 2404.01291), normalised over the two words.

    path: a folder or Hugging Face model id with a chat template. max_rows: requests per forward pass; a row's number
    does not depend on the rows beside it. question_format: the chat message, {question} in it; the picture stands before.
    chat_template_kwargs: for the template, e.g. {"enable_thinking": False}. max_new_tokens: of `write`.
    Special tokens that a question or request spells out are broken up by a space, so that none can act as one.
    Raises UserError for a checkpoint that is absent, no such model, damaged, or without chat template, yes or no.
    """

    name = "vlm"
    hard = False

    def __init__(
        self,
        path: str,
        device: str = "auto",
        dtype: Literal["fp32", "bf16"] = "fp32",
        question_format: str = QUESTION_FORMAT,
        max_rows: int = 16,
        min_yes_no_mass: float = 1e-3,
        max_new_tokens: int = 512,
        chat_template_kwargs: JsonMapping | None = None,
    ):
        check_question_format(question_format)
        if dtype not in DTYPES:
            raise UserError(f"dtype={dtype}: unknown. Use one of {', '.join(DTYPES)}.")
        self.path, self.device = str(path), pick_device(device)
        self.question_format, self.max_rows, self.min_yes_no_mass = question_format, max_rows, min_yes_no_mass
        self.max_new_tokens, self.chat_template_kwargs = max_new_tokens, dict(chat_template_kwargs or {})
        model, self.processor = read_chat_model(self.path)
        self.yes, self.no = yes_no_ids(self.processor.tokenizer, self.path)
        model.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None, max_length=None)
        self.model = model.to(self.device, DTYPES[dtype])
        ends = model.generation_config.eos_token_id
        self._ends = torch.tensor(
            ends if isinstance(ends, list) else [-1 if ends is None else ends], device=self.device
        )
        self._escape = token_escaper(self.processor.tokenizer)

    @cached_property
    def revision(self) -> str:
        """Short hash of the weights, the question's format and the chat template."""
        asked = f"{self.question_format} {self.processor.chat_template} {sorted(self.chat_template_kwargs.items())}"
        return digest(f"{self.name} {asked}", self.model)

    @torch.no_grad()
    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """pictures: (B, H, W, 3) uint8. → (B,) float32 P(yes) on the CPU."""
        check_pairs(pictures, questions)
        array = pictures.cpu().numpy()
        requests = [Request(asked(self.question_format, q), (p,)) for p, q in zip(array, questions)]
        p = torch.full((len(requests),), torch.nan)
        for rows in self._batches(requests):
            logits = self._first_logits([requests[row] for row in rows])
            probs = logits.float().softmax(-1).cpu()
            p[rows] = p_yes(probs[:, self.yes].sum(1), probs[:, self.no].sum(1), self.min_yes_no_mass)
        return p

    @torch.no_grad()
    def write(self, requests: Sequence[Request]) -> list[str | None]:
        """The greedy answer to each request without its thoughts, at most `max_new_tokens` long; None where there is none.

        One that was cut there lacks the word that it was cut in. What else the checkpoint's generation_config.json sets, a
        repetition penalty say, holds.
        """
        texts: list[str | None] = [None] * len(requests)
        for rows in self._batches(requests):
            replies = self._generate([requests[row] for row in rows], max_new_tokens=self.max_new_tokens)
            ended = torch.isin(replies, self._ends).any(1).tolist()
            said = self.processor.tokenizer.batch_decode(replies, skip_special_tokens=True)
            for row, text, is_whole in zip(rows, map(without_thoughts, said), ended):
                texts[row] = (text if is_whole else without_last_word(text)) or None
        return texts

    def _batches(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """Rows to judge together: at most `max_rows`, of as many pictures each, for processors cannot mix these."""
        by_count: dict[int, list[int]] = {}
        for row, request in enumerate(requests):
            by_count.setdefault(len(request.pictures), []).append(row)
        for rows in by_count.values():
            yield from (rows[i : i + self.max_rows] for i in range(0, len(rows), self.max_rows))

    def _first_logits(self, requests: Sequence[Request]) -> Tensor:
        """(B, V) of the reply's first token."""
        return self._generated(requests, max_new_tokens=1, output_logits=True)[0].logits[0]

    def _generate(self, requests: Sequence[Request], max_new_tokens: int) -> Tensor:
        """(B, ≤ max_new_tokens) ids of the replies; no logits are kept, which of a long reply are gigabytes."""
        output, start = self._generated(requests, max_new_tokens=max_new_tokens)
        return output.sequences[:, start:]

    def _generated(self, requests: Sequence[Request], **settings: Any) -> tuple[Any, int]:
        """(what the model generates, the place at which its replies begin)."""
        inputs = self.processor.apply_chat_template(
            [self._conversation(request) for request in requests],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"padding": True}, **self.chat_template_kwargs,
        )  # fmt: skip
        # generate() also derives the positions that left padding shifts, each model in its own way.
        inputs = inputs.to(self.device, self.model.dtype)
        start = 1 if self.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        return self.model.generate(**inputs, return_dict_in_generate=True, **settings), start

    def _conversation(self, request: Request) -> list[JsonObject]:
        parts: list[JsonObject] = [{"type": "image", "image": to_pil(np.asarray(p))} for p in request.pictures]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": self._escape(request.text)}]}]
