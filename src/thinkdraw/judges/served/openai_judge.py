"""A model behind any OpenAI-compatible endpoint (vLLM, SGLang, `transformers serve`, a hosted one) as a judge."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.images import to_data_uri
from thinkdraw.judges.questioners.yes_no import (
    QUESTION_FORMAT,
    check_pairs,
    check_question_format,
    p_yes,
    parse_yes_no,
    read_token,
)
from thinkdraw.judges.served.endpoint import Alternative, ChatCompletion, Endpoint, LogProbs
from thinkdraw.runtime.http import NoAnswer
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Request

Mode = Literal["auto", "logprobs", "answer"]
MAX_ANSWER_TOKENS = 8  # enough for yes or no in any spelling; the rest of the answer is not read


class OpenAIJudge:
    """`Questioner` and `Writer` over HTTP; pictures travel as base64 PNG, one request per row, rows are never swapped.

    mode "logprobs": P(yes) = p(yes) / (p(yes) + p(no)) over the spellings of both among the `top_logprobs` most likely
    first tokens; NaN where one of the two is not among them or both together have less than `min_yes_no_mass`. Spellings
    further down are not seen, so a value may differ from the local one by at most their probability.
    mode "answer": 1 or 0 for an answer that begins with yes or no (`parse_yes_no`), NaN otherwise. This is a verdict,
    not a probability: `hard` is True, and who reports it says so.
    mode "auto": logprobs where a test request at construction gets them, else answer. Asked-for log-probs that do not
    come are an error: some servers ignore the field.

    base_url, api_key_env, max_concurrent, timeout_s, max_retries, backoff_s: as in `Endpoint`. extra_body: further fields
    of every request, e.g. {"chat_template_kwargs": {"enable_thinking": False}} for vLLM. max_new_tokens: of `write`.
    A request that fails for good, or that another model answers than at the start, is NaN (None in `write`); `failures`
    counts the reasons.
    Raises UserError at construction for a server that cannot be reached, refuses the key or does not serve `model`.
    """

    name = "openai"
    elsewhere = True

    def __init__(
        self,
        model: str,
        base_url: str,
        mode: Mode = "auto",
        api_key_env: str | None = None,
        question_format: str = QUESTION_FORMAT,
        top_logprobs: int = 20,
        min_yes_no_mass: float = 1e-3,
        max_new_tokens: int = 512,
        max_concurrent: int = 8,
        timeout_s: float = 60.0,
        max_retries: int = 4,
        backoff_s: float = 0.5,
        extra_body: JsonMapping | None = None,
    ):
        check_question_format(question_format)
        self.model, self.question_format, self.extra_body = model, question_format, dict(extra_body or {})
        self.top_logprobs, self.min_yes_no_mass, self.max_new_tokens = top_logprobs, min_yes_no_mass, max_new_tokens
        self.api_key_env = api_key_env
        self.endpoint = Endpoint(base_url, api_key_env, max_concurrent, timeout_s, max_retries, backoff_s)
        self.failures: Counter[str] = Counter()
        self.hard, first = self._probe(mode)
        self.served_as, self.fingerprint = first.model, first.system_fingerprint

    @property
    def revision(self) -> str:
        """Address, model, what the server called it at the start, and the mode. Weights behind a name are not seen."""
        served = " ".join(filter(None, (self.served_as, self.fingerprint)))
        mode = "answer" if self.hard else "logprobs"
        return f"{self.endpoint.base_url} {self.model} ({served or 'unnamed'}) {mode}"

    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """pictures: (B, H, W, 3) uint8. → (B,) float32: P(yes), or 1 and 0 where `hard`."""
        check_pairs(pictures, questions)
        array = pictures.cpu().numpy()
        bodies = [partial(self._question, *pair) for pair in zip(array, questions)]
        return torch.tensor([self._verdict(reply) for reply in self._ask_all(bodies)], dtype=torch.float32)

    def write(self, requests: Sequence[Request]) -> list[str | None]:
        """The greedy answer to each request, at most `max_new_tokens` long; None where none came."""
        bodies = [partial(self._body, r.text, r.pictures, max_tokens=self.max_new_tokens) for r in requests]
        return [None if reply is None else self._text(reply) for reply in self._ask_all(bodies)]

    # Requests

    def _body(self, text: str, pictures: Sequence[np.ndarray], **settings: Any) -> JsonObject:
        parts: list[JsonObject] = [{"type": "image_url", "image_url": {"url": to_data_uri(p)}} for p in pictures]
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
        return {"model": self.model, "messages": messages, "temperature": 0.0, **settings, **self.extra_body}

    def _question(self, picture: np.ndarray, question: str, hard: bool | None = None) -> JsonObject:
        text = self.question_format.replace("{question}", question)
        if self.hard if hard is None else hard:
            return self._body(text, [picture], max_tokens=MAX_ANSWER_TOKENS)
        return self._body(text, [picture], max_tokens=1, logprobs=True, top_logprobs=self.top_logprobs)

    def _ask_all(self, bodies: Sequence[Callable[[], JsonMapping]]) -> list[ChatCompletion | None]:
        replies: list[ChatCompletion | None] = []
        for reply in self.endpoint.ask_all(bodies):
            if isinstance(reply, NoAnswer):
                self.failures[reply.reason] += 1
            elif not reply.choices:
                self.failures["reply without an answer"] += 1
            elif reply.model != self.served_as:
                self.failures[f"answered by {reply.model or 'an unnamed model'}"] += 1
            else:
                replies.append(reply)
                continue
            replies.append(None)
        return replies

    # Verdicts

    def _verdict(self, reply: ChatCompletion | None) -> float:
        if reply is None:
            return math.nan
        if self.hard:
            verdict = parse_yes_no(reply.choices[0].message.content)
        else:
            verdict = self._p_yes(reply.choices[0].logprobs)
        if math.isnan(verdict):
            self.failures["neither yes nor no" if self.hard else "no yes and no among the likely tokens"] += 1
        return verdict

    def _p_yes(self, logprobs: LogProbs | None) -> float:
        masses: dict[str | None, list[float]] = {"yes": [], "no": []}
        for alternative in first_token(logprobs):
            masses.setdefault(read_token(alternative.token), []).append(math.exp(alternative.logprob))
        if not masses["yes"] or not masses["no"]:
            return math.nan
        yes, no = (torch.tensor(masses[word], dtype=torch.float64).sum() for word in ("yes", "no"))
        return float(p_yes(yes, no, self.min_yes_no_mass))

    def _text(self, reply: ChatCompletion) -> str | None:
        text = (reply.choices[0].message.content or "").strip()
        if not text:
            self.failures["empty answer"] += 1
        return text or None

    # The test request at construction

    def _probe(self, mode: Mode) -> tuple[bool, ChatCompletion]:
        """(whether verdicts are hard, the server's first reply) of a question about a small grey picture."""
        if mode not in ("auto", "logprobs", "answer"):
            raise UserError(f"mode={mode}: unknown. Use auto, logprobs or answer.")
        ask = partial(self._question, np.full((64, 64, 3), 127, np.uint8), "Is the picture grey?")
        if mode != "answer":
            try:
                reply = self.endpoint.ask(ask(hard=False))
            except NoAnswer as failure:
                # A server that checks its fields may refuse the log-probs; whether that was it shows the plain request.
                if mode == "logprobs" or failure.status not in (400, 422):
                    raise self._unusable(failure) from failure
            else:
                if reply.choices and len(first_token(reply.choices[0].logprobs)) > 1:
                    return False, reply
                if mode == "logprobs":
                    raise UserError(
                        f"judge openai: mode=logprobs, but {self.endpoint.base_url} answers without top_logprobs. Use a "
                        "server that returns them (vLLM, SGLang), or mode=answer for hard verdicts."
                    )
        try:
            reply = self.endpoint.ask(ask(hard=True))
        except NoAnswer as failure:
            raise self._unusable(failure) from failure
        if not reply.choices:
            raise UserError(
                f"judge openai: {self.endpoint.base_url} replies without an answer. Check model and server."
            )
        return True, reply

    def _unusable(self, failure: NoAnswer) -> UserError:
        where = self.endpoint.base_url
        if failure.status is None:
            return UserError(
                f"judge openai: {where} does not answer ({failure}). Start the server, or correct base_url."
            )
        if failure.status in (401, 403):
            named, unnamed = f"a valid key into {self.api_key_env}", "the name of the key's variable into api_key_env"
            key = named if self.api_key_env else unnamed
            return UserError(f"judge openai: {where} refuses the key ({failure}). Put {key}.")
        if failure.status in (400, 404) and (served := self.endpoint.served_models()) and self.model not in served:
            names = ", ".join(served[:5])
            return UserError(f"judge openai: {where} does not serve model={self.model} ({failure}). It serves {names}.")
        return UserError(
            f"judge openai: {where} does not answer a question about a small picture ({failure}). "
            "Check that base_url ends as the server says (/v1), and that model is served and takes pictures."
        )


def first_token(logprobs: LogProbs | None) -> Sequence[Alternative]:
    """The likely first tokens, as far as the server shows them."""
    return logprobs.content[0].top_logprobs if logprobs and logprobs.content else []
