"""A local chat model that sees pictures as a judge (Qwen-VL, LLaVA, Janus)."""

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
    check_pairs,
    check_question_format,
    format_question,
    p_yes,
    yes_no_ids,
)
from thinkdraw.runtime.chat.thoughts import drop_last_word, strip_thoughts
from thinkdraw.runtime.control_tokens import token_escaper
from thinkdraw.runtime.device import pick_device, stored_dtype
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Request

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class VlmJudge:
    """Answers yes-or-no questions, and writes, with any local chat model that sees.

    P(yes) = p(yes) / (p(yes) + p(no)) at the first token of the reply, from one forward pass. Each probability is
    summed over all tokens that spell the word (yes, Yes, " yes", …). NaN where both together have less than
    `min_yes_no_mass`: the model was about to say something else. As VQAScore (Lin et al. 2024, arXiv 2404.01291), but
    normalised over the two words.

    path: a folder or Hugging Face model id with a chat template. device: auto takes a GPU if there is one. dtype:
    of the weights; auto is as they are stored on an NVIDIA GPU, and fp32 elsewhere. max_rows: requests per forward
    pass; a row's number does not depend on the rows beside it. question_format: the chat message with {question} in
    it; the picture stands before.
    chat_template_kwargs: for the template, such as {"enable_thinking": False}. max_new_tokens: of `write`.
    Special tokens that a question or request spells out are broken up by a space, so that they cannot act as such.
    Raises UserError for a checkpoint that is absent, no such model, damaged, or without chat template, yes or no.
    """

    name = "vlm"
    hard = False

    def __init__(
        self,
        path: str,
        device: str = "auto",
        dtype: Literal["auto", "fp32", "bf16"] = "auto",
        question_format: str = QUESTION_FORMAT,
        max_rows: int = 16,
        min_yes_no_mass: float = 1e-3,
        max_new_tokens: int = 512,
        chat_template_kwargs: JsonMapping | None = None,
    ):
        check_question_format(question_format)
        if dtype not in ("auto", *DTYPES):
            raise UserError(f"dtype={dtype}: unknown. Use one of auto, {', '.join(DTYPES)}.")
        self.path, self.device = str(path), pick_device(device)
        self.question_format, self.max_rows, self.min_yes_no_mass = question_format, max_rows, min_yes_no_mass
        self.max_new_tokens, self.chat_template_kwargs = max_new_tokens, dict(chat_template_kwargs or {})
        model, self.processor = read_chat_model(self.path)
        self.yes, self.no = yes_no_ids(self.processor.tokenizer, self.path)
        model.generation_config.update(do_sample=False, temperature=None, top_p=None, top_k=None, max_length=None)
        if dtype == "auto":
            dtype = stored_dtype(self.path) if self.device.type == "cuda" else "fp32"
        self.model = model.to(self.device, DTYPES[dtype])
        ends = model.generation_config.eos_token_id
        self._ends = torch.tensor(
            ends if isinstance(ends, list) else [-1 if ends is None else ends], device=self.device
        )
        self._escape = token_escaper(self.processor.tokenizer)

    @cached_property
    def revision(self) -> str:
        """Short hash of the weights, the question's format and the chat template."""
        message = f"{self.question_format} {self.processor.chat_template} {sorted(self.chat_template_kwargs.items())}"
        return digest(f"{self.name} {message}", self.model)

    @torch.no_grad()
    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Answer a question about each picture: (B, H, W, 3) uint8 → (B,) float32 P(yes)."""
        check_pairs(pictures, questions)
        array = pictures.cpu().numpy()
        requests = [Request(format_question(self.question_format, q), (p,)) for p, q in zip(array, questions)]
        p = torch.full((len(requests),), torch.nan)
        for rows in self._batches(requests):
            logits = self._first_logits([requests[row] for row in rows])
            probs = logits.float().softmax(-1).cpu()
            p[rows] = p_yes(probs[:, self.yes].sum(1), probs[:, self.no].sum(1), self.min_yes_no_mass)
        return p

    @torch.no_grad()
    def write(self, requests: Sequence[Request]) -> list[str | None]:
        """Write the greedy answer to each request; None where there is none.

        Thoughts are taken out. An answer cut at `max_new_tokens` loses the word in which it was cut. Other settings of
        the checkpoint's generation_config.json, such as a repetition penalty, hold.
        """
        texts: list[str | None] = [None] * len(requests)
        for rows in self._batches(requests):
            replies = self._generate([requests[row] for row in rows], max_new_tokens=self.max_new_tokens)
            is_complete = torch.isin(replies, self._ends).any(1).tolist()
            decoded = self.processor.tokenizer.batch_decode(replies, skip_special_tokens=True)
            for row, text, is_whole in zip(rows, map(strip_thoughts, decoded), is_complete):
                texts[row] = (text if is_whole else drop_last_word(text)) or None
        return texts

    def _batches(self, requests: Sequence[Request]) -> Iterator[list[int]]:
        """Yield rows to judge together: at most `max_rows`, with equally many pictures.

        Processors cannot mix numbers of pictures.
        """
        by_count: dict[int, list[int]] = {}
        for row, request in enumerate(requests):
            by_count.setdefault(len(request.pictures), []).append(row)
        for rows in by_count.values():
            yield from (rows[i : i + self.max_rows] for i in range(0, len(rows), self.max_rows))

    def _first_logits(self, requests: Sequence[Request]) -> Tensor:
        """Return the logits of each reply's first token: (B, V)."""
        return self._run_generation(requests, max_new_tokens=1, output_logits=True)[0].logits[0]

    def _generate(self, requests: Sequence[Request], max_new_tokens: int) -> Tensor:
        """Generate replies: (B, ≤ max_new_tokens) ids.

        Logits are not stored: for a long reply they are gigabytes.
        """
        output, start = self._run_generation(requests, max_new_tokens=max_new_tokens)
        return output.sequences[:, start:]

    def _run_generation(self, requests: Sequence[Request], **settings: Any) -> tuple[Any, int]:
        """Run `generate` on requests; also return where the replies begin in its output."""
        inputs = self.processor.apply_chat_template(
            [self._conversation(request) for request in requests],
            add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt",
            processor_kwargs={"padding": True}, **self.chat_template_kwargs,
        )  # fmt: skip
        # generate() instead of forward(): left padding shifts positions, and each model corrects them in its own way there.
        inputs = inputs.to(self.device, self.model.dtype)
        start = 1 if self.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        return self.model.generate(**inputs, return_dict_in_generate=True, **settings), start

    def _conversation(self, request: Request) -> list[JsonObject]:
        parts: list[JsonObject] = [{"type": "image", "image": to_pil(np.asarray(p))} for p in request.pictures]
        return [{"role": "user", "content": [*parts, {"type": "text", "text": self._escape(request.text)}]}]
