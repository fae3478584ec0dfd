"""A model behind an OpenAI-compatible endpoint (vLLM, SGLang, hosted) as a judge."""

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.images import to_data_uri
from thinkdraw.judges.questioners.yes_no import (
    QUESTION_FORMAT,
    check_pairs,
    check_question_format,
    format_question,
    p_yes,
    parse_yes_no,
    read_token,
)
from thinkdraw.judges.served.endpoint import Endpoint
from thinkdraw.runtime.chat.completion import Alternative, ChatCompletion
from thinkdraw.runtime.http import NoAnswer
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Request

Mode = Literal["auto", "logprobs", "answer", "write"]
TEST_QUESTION = "Is the picture grey?"
UNLIKELY = "neither yes nor no among the likely tokens"


class OpenAIJudge:
    """Answers yes-or-no questions, and writes, with a model behind a chat server.

    Pictures travel as base64 PNG, one request per row; replies keep the order of the rows.
    mode "logprobs": P(yes) = p(yes) / (p(yes) + p(no)) over the spellings of both words among the `top_logprobs` most
    likely first tokens. A word that is not among them counts with the most that it can have: no more than the least
    likely of them, and no more than they all leave. NaN where neither is among them, or where both together have less
    than `min_yes_no_mass`.
    Spellings further down are not seen, so a value may differ from a local model's by at most their probability.
    mode "answer": 1 or 0 for an answer that begins with yes or no once its thoughts are taken out (`parse_yes_no`),
    else NaN.
    This is a verdict and no probability: `hard` is True, and reports say so.
    mode "auto": "logprobs" if a test question at construction gets yes or no by them, else "answer", with a warning.
    mode "write": only for `write`. The test question need not get yes or no, and `answer` is refused.

    base_url, api_key_env, max_concurrent, timeout_s, max_retries, backoff_s, extra_body: as in `Endpoint`. For vLLM,
    extra_body may be {"chat_template_kwargs": {"enable_thinking": False}}.
    question_format: the message, with {question} in it. max_answer_tokens: length of an answer in mode "answer". 8
    suffice for yes or no in any spelling; a model that thinks first needs thousands. max_new_tokens: of `write`.
    A request is NaN (None in `write`) if it fails for good, or if another model answers it than at the start;
    `failures` counts the reasons, each with an example.
    Raises UserError at construction for a server that cannot be reached, refuses the key or does not serve `model`, and
    for a model that answers the test question with neither yes nor no.
    """

    name = "openai"
    elsewhere = True
    wants_yes_no = True

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
        max_answer_tokens: int = 8,
    ):
        check_question_format(question_format)
        self.model, self.question_format, self.max_answer_tokens = model, question_format, max_answer_tokens
        self.top_logprobs, self.min_yes_no_mass, self.max_new_tokens = top_logprobs, min_yes_no_mass, max_new_tokens
        self.api_key_env = api_key_env
        self.endpoint = Endpoint(base_url, api_key_env, max_concurrent, timeout_s, max_retries, backoff_s, extra_body)
        self.failures: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self.mode, first = self._probe(mode)
        self.served_model, self.fingerprint, self._left_out = (
            first.model, first.system_fingerprint, self.endpoint.left_out,
        )  # fmt: skip

    @property
    def hard(self) -> bool:
        """Whether answers are verdicts, 1 or 0, instead of probabilities."""
        return self.mode == "answer"

    @property
    def revision(self) -> str:
        """The model, the name the server answered by at the start, and the mode.

        The server does not show weights, so new weights under the same name go unnoticed. The address is left out: the
        same model on another machine is the same judge.
        """
        served = " ".join(filter(None, (self.served_model, self.fingerprint)))
        without = "".join(f" without {name}" for name in self._left_out)
        return f"{self.model} ({served or 'unnamed'}) {self.mode}{without}"

    @property
    def former_revision(self) -> str:
        """The revision in older versions, with the address: a run begun with it can go on."""
        return f"{self.endpoint.base_url} {self.revision}"

    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """Answer a question about each picture: (B, H, W, 3) uint8 → (B,) float32.

        The number is P(yes), or 1 and 0 where `hard`.
        """
        check_pairs(pictures, questions)
        if self.mode == "write":
            raise UserError("judge openai: mode=write answers no questions. Use mode=auto.")
        array = pictures.cpu().numpy()
        bodies = [partial(self._question_body, *pair) for pair in zip(array, questions)]
        return torch.tensor([self._verdict(reply) for reply in self._send_all(bodies)], dtype=torch.float32)

    def write(self, requests: Sequence[Request]) -> list[str | None]:
        """Write the greedy answer to each request; None where none came.

        Thoughts are taken out. An answer cut at `max_new_tokens` loses the word in which it was cut.
        """
        bodies = [partial(self._body, r.text, r.pictures, max_tokens=self.max_new_tokens) for r in requests]
        return [None if reply is None else self._text(reply) for reply in self._send_all(bodies)]

    # Requests

    def _body(self, text: str, pictures: Sequence[np.ndarray], **settings: Any) -> JsonObject:
        parts: list[JsonObject] = [{"type": "image_url", "image_url": {"url": to_data_uri(p)}} for p in pictures]
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
        return {"model": self.model, "messages": messages, "temperature": 0.0, **settings}

    def _question_body(self, picture: np.ndarray, question: str, hard: bool | None = None) -> JsonObject:
        text = format_question(self.question_format, question)
        if self.hard if hard is None else hard:
            return self._body(text, [picture], max_tokens=self.max_answer_tokens)
        return self._body(text, [picture], max_tokens=1, logprobs=True, top_logprobs=self.top_logprobs)

    def _send_all(self, bodies: Sequence[Callable[[], JsonMapping]]) -> list[ChatCompletion | None]:
        replies: list[ChatCompletion | None] = []
        for reply in self.endpoint.ask_all(bodies):
            if isinstance(reply, NoAnswer):
                self._fail(reply.reason, reply.detail if reply.status is not None else "")
            elif reply.model != self.served_model:
                self._fail(f"answered by {reply.model or 'an unnamed model'}")
            else:
                replies.append(reply)
                continue
            replies.append(None)
        return replies

    def _fail(self, reason: str, example: str = "") -> None:
        """Count a reason under its first example, so that a log shows what came."""
        self.failures[self._examples.setdefault(reason, f"{reason}: {example}" if example else reason)] += 1

    # Verdicts

    def _verdict(self, reply: ChatCompletion | None) -> float:
        if reply is None:
            return math.nan
        verdict = parse_yes_no(reply.text) if self.hard else self._p_yes(reply)
        if math.isnan(verdict):
            self._fail(*self._reason_for_none(reply))
        return verdict

    def _p_yes(self, reply: ChatCompletion) -> float:
        likely = [(read_token(token.token), math.exp(token.logprob)) for token in first_token(reply)]
        masses = {word: sum(p for spelt, p in likely if spelt == word) for word in ("yes", "no")}
        if not any(masses.values()):
            return math.nan
        # A word outside the top tokens has no probability here, but two bounds: the least likely token that is listed is
        # at least as likely, and all listed ones leave only the rest of 1. Zero would turn "almost sure" into 1.
        bound = min(min(p for _, p in likely), max(0.0, 1 - sum(p for _, p in likely)))
        listed = {word for word, _ in likely}
        yes, no = (torch.tensor(masses[word] if word in listed else bound).double() for word in ("yes", "no"))
        return math.nan if sum(masses.values()) < self.min_yes_no_mass else float(p_yes(yes, no, 0.0))

    def _reason_for_none(self, reply: ChatCompletion) -> tuple[str, str]:
        """Say why a reply holds no verdict: (reason, example)."""
        if reply.lack and self.hard:
            return reply.lack, repr(reply.excerpt) if reply.excerpt else ""
        if self.hard:
            return "neither yes nor no", repr(reply.excerpt)
        return (UNLIKELY, likely_tokens(reply)) if first_token(reply) else ("no log-probabilities", "")

    def _text(self, reply: ChatCompletion) -> str | None:
        text = "" if reply.lack else reply.whole_words
        if not text:
            self._fail(reply.lack or "cut off before an answer")
        return text or None

    # The test question at construction

    def _probe(self, mode: Mode) -> tuple[Mode, ChatCompletion]:
        """Ask a test question about a small grey picture, and settle the mode by it.

        Returns (logprobs, answer or write; the server's first reply).
        """
        if mode not in get_args(Mode):
            raise UserError(f"mode={mode}: unknown. Use {', '.join(get_args(Mode))}.")
        question = partial(self._question_body, np.full((64, 64, 3), 127, np.uint8), TEST_QUESTION)
        why, where = "", self.endpoint.base_url
        if mode in ("auto", "logprobs"):
            try:
                reply = self.endpoint.ask(question(hard=False))
            except NoAnswer as failure:
                # A server that checks fields may refuse log-probs. The plain request below shows whether that was it.
                if mode == "logprobs" or failure.status not in (400, 422):
                    raise self._connection_error(failure) from failure
                why = f"{where} refuses a request for log-probs: {failure.detail or failure.reason}"
            else:
                if len(first_token(reply)) < 2:
                    why = f"{where} answers without top_logprobs"
                elif not self.wants_yes_no or not math.isnan(self._p_yes(reply)):
                    return "logprobs", reply
                else:
                    why = f"{self.model} begins its reply to {TEST_QUESTION!r} with neither yes nor no but {likely_tokens(reply)}"
                if mode == "logprobs":
                    raise UserError(
                        f"judge openai: mode=logprobs, but {why}. Use a server that returns them and a model that begins with "
                        "yes or no (thoughts off: extra_body={chat_template_kwargs: {enable_thinking: false}}), or "
                        "mode=answer for hard verdicts."
                    )
        try:
            reply = self.endpoint.ask(question(hard=True))
        except NoAnswer as failure:
            raise self._connection_error(failure) from failure
        if mode == "write":
            return mode, reply
        if math.isnan(parse_yes_no(reply.text)):
            raise self._no_verdict_error(reply, why)
        if why:
            warnings.warn(f"judge openai: verdicts are hard, 1 or 0: {why}.", stacklevel=3)
        return "answer", reply

    def _no_verdict_error(self, reply: ChatCompletion, why: str) -> UserError:
        details = ", ".join(filter(None, (repr(reply.excerpt), reply.lack, why)))
        return UserError(
            f"judge openai: {self.model} at {self.endpoint.base_url} answers {TEST_QUESTION!r} with neither yes nor no "
            f"({details}). If it thinks first, switch that off (extra_body={{chat_template_kwargs: "
            "{enable_thinking: false}}) or give it room (max_answer_tokens=2048). For a model that only writes, use "
            "mode=write."
        )

    def _connection_error(self, failure: NoAnswer) -> UserError:
        where = self.endpoint.base_url
        if failure.reason == "timeout":
            return UserError(
                f"judge openai: {where} does not answer ({failure}). Raise timeout_s, or correct base_url."
            )
        if failure.reason == "no connection":
            return UserError(
                f"judge openai: {where} does not answer ({failure}). Start the server, or correct base_url."
            )
        if failure.status in (401, 403):
            remedy = (
                f"Put a valid key into the environment variable {self.api_key_env}."
                if self.api_key_env
                else "Set api_key_env to the name of the environment variable that holds the key."
            )
            return UserError(f"judge openai: {where} refuses the key ({failure}). {remedy}")
        if failure.status in (400, 404) and (served := self.endpoint.served_models()) and self.model not in served:
            names = ", ".join(served[:5])
            return UserError(f"judge openai: {where} does not serve model={self.model} ({failure}). It serves {names}.")
        return UserError(
            f"judge openai: {where} does not answer a question about a small picture ({failure}). "
            "Check that base_url ends as the server says (/v1), and that the model is served and takes pictures."
        )


def first_token(reply: ChatCompletion) -> Sequence[Alternative]:
    """List the likely first tokens, as far as the server shows them."""
    logprobs = reply.choices[0].logprobs
    return logprobs.content[0].top_logprobs if logprobs and logprobs.content else []


def likely_tokens(reply: ChatCompletion) -> str:
    """Name the three likeliest first tokens with their probabilities."""
    best = sorted(first_token(reply), key=lambda token: -token.logprob)[:3]
    return ", ".join(f"{token.token[:20]!r} ({math.exp(token.logprob):.0%})" for token in best)
