"""A model behind any OpenAI-compatible endpoint (vLLM, SGLang, `transformers serve`, a hosted one) as a judge."""

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
    asked,
    check_pairs,
    check_question_format,
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
    """`Questioner` and `Writer` over HTTP; pictures travel as base64 PNG, one request per row, rows are never swapped.

    mode "logprobs": P(yes) = p(yes) / (p(yes) + p(no)) over the spellings of both among the `top_logprobs` most likely
    first tokens. A word that is not among them counts with the most that it can have: as much as the least likely of them,
    and no more than all of them leave. NaN where neither is among them or both together have less than
    `min_yes_no_mass`. Spellings further down are not seen, so a value may differ from the local one by at most their
    probability.
    mode "answer": 1 or 0 for an answer that begins with yes or no once its thoughts are taken out (`parse_yes_no`), NaN
    otherwise. This is a verdict, not a probability: `hard` is True, and who reports it says so.
    mode "auto": logprobs where a test question at construction gets yes or no by them, else answer, with a warning.
    mode "write": for `write` alone; no yes or no is asked for at construction, and `answer` is refused.

    base_url, api_key_env, max_concurrent, timeout_s, max_retries, backoff_s, extra_body: as in `Endpoint`; extra_body is for
    example {"chat_template_kwargs": {"enable_thinking": False}} for vLLM. max_answer_tokens: of an answer in mode "answer",
    enough for yes or no in any spelling; a model that thinks first needs thousands. max_new_tokens: of `write`.
    A request that fails for good, or that another model answers than at the start, is NaN (None in `write`); `failures`
    counts the reasons, each with an example of what came.
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
        self.served_as, self.fingerprint, self._left_out = (
            first.model, first.system_fingerprint, self.endpoint.left_out,
        )  # fmt: skip

    @property
    def hard(self) -> bool:
        return self.mode == "answer"

    @property
    def revision(self) -> str:
        """Model, what the server called it at the start, and the mode. Weights behind a name are not seen.

        Not the address: the same model on another machine is the same judge.
        """
        served = " ".join(filter(None, (self.served_as, self.fingerprint)))
        without = "".join(f" without {name}" for name in self._left_out)
        return f"{self.model} ({served or 'unnamed'}) {self.mode}{without}"

    @property
    def former_revision(self) -> str:
        """As older versions had it, with the address: a run that began with it goes on there."""
        return f"{self.endpoint.base_url} {self.revision}"

    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        """pictures: (B, H, W, 3) uint8. → (B,) float32: P(yes), or 1 and 0 where `hard`."""
        check_pairs(pictures, questions)
        if self.mode == "write":
            raise UserError("judge openai: mode=write answers no questions. Use mode=auto.")
        array = pictures.cpu().numpy()
        bodies = [partial(self._question, *pair) for pair in zip(array, questions)]
        return torch.tensor([self._verdict(reply) for reply in self._ask_all(bodies)], dtype=torch.float32)

    def write(self, requests: Sequence[Request]) -> list[str | None]:
        """The greedy answer to each request without its thoughts, at most `max_new_tokens` long; None where none came.

        One that was cut there lacks the word that it was cut in.
        """
        bodies = [partial(self._body, r.text, r.pictures, max_tokens=self.max_new_tokens) for r in requests]
        return [None if reply is None else self._text(reply) for reply in self._ask_all(bodies)]

    # Requests

    def _body(self, text: str, pictures: Sequence[np.ndarray], **settings: Any) -> JsonObject:
        parts: list[JsonObject] = [{"type": "image_url", "image_url": {"url": to_data_uri(p)}} for p in pictures]
        messages = [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
        return {"model": self.model, "messages": messages, "temperature": 0.0, **settings}

    def _question(self, picture: np.ndarray, question: str, hard: bool | None = None) -> JsonObject:
        text = asked(self.question_format, question)
        if self.hard if hard is None else hard:
            return self._body(text, [picture], max_tokens=self.max_answer_tokens)
        return self._body(text, [picture], max_tokens=1, logprobs=True, top_logprobs=self.top_logprobs)

    def _ask_all(self, bodies: Sequence[Callable[[], JsonMapping]]) -> list[ChatCompletion | None]:
        replies: list[ChatCompletion | None] = []
        for reply in self.endpoint.ask_all(bodies):
            if isinstance(reply, NoAnswer):
                self._fail(reply.reason, reply.detail if reply.status is not None else "")
            elif reply.model != self.served_as:
                self._fail(f"answered by {reply.model or 'an unnamed model'}")
            else:
                replies.append(reply)
                continue
            replies.append(None)
        return replies

    def _fail(self, reason: str, example: str = "") -> None:
        """Count a reason, under its first example."""
        self.failures[self._examples.setdefault(reason, f"{reason}: {example}" if example else reason)] += 1

    # Verdicts

    def _verdict(self, reply: ChatCompletion | None) -> float:
        if reply is None:
            return math.nan
        verdict = parse_yes_no(reply.text) if self.hard else self._p_yes(reply)
        if math.isnan(verdict):
            self._fail(*self._lack(reply))
        return verdict

    def _p_yes(self, reply: ChatCompletion) -> float:
        likely = [(read_token(seen.token), math.exp(seen.logprob)) for seen in first_token(reply)]
        masses = {word: sum(p for found, p in likely if found == word) for word in ("yes", "no")}
        if not any(masses.values()):
            return math.nan
        unseen = min(min(p for _, p in likely), max(0.0, 1 - sum(p for _, p in likely)))
        seen = {word for word, _ in likely}
        yes, no = (torch.tensor(masses[word] if word in seen else unseen).double() for word in ("yes", "no"))
        return math.nan if sum(masses.values()) < self.min_yes_no_mass else float(p_yes(yes, no, 0.0))

    def _lack(self, reply: ChatCompletion) -> tuple[str, str]:
        """(reason, example) of a reply without a verdict."""
        if reply.lack and self.hard:
            return reply.lack, repr(reply.said) if reply.said else ""
        if self.hard:
            return "neither yes nor no", repr(reply.said)
        return (UNLIKELY, likely_tokens(reply)) if first_token(reply) else ("no log-probabilities", "")

    def _text(self, reply: ChatCompletion) -> str | None:
        text = "" if reply.lack else reply.whole_words
        if not text:
            self._fail(reply.lack or "cut off before an answer")
        return text or None

    # The test question at construction

    def _probe(self, mode: Mode) -> tuple[Mode, ChatCompletion]:
        """(logprobs, answer or write; the server's first reply) of a question about a small grey picture."""
        if mode not in get_args(Mode):
            raise UserError(f"mode={mode}: unknown. Use {', '.join(get_args(Mode))}.")
        ask, why, where = (
            partial(self._question, np.full((64, 64, 3), 127, np.uint8), TEST_QUESTION),
            "",
            self.endpoint.base_url,
        )
        if mode in ("auto", "logprobs"):
            try:
                reply = self.endpoint.ask(ask(hard=False))
            except NoAnswer as failure:
                # A server that checks its fields may refuse the log-probs; whether that was it shows the plain request.
                if mode == "logprobs" or failure.status not in (400, 422):
                    raise self._unusable(failure) from failure
                why = f"asked for log-probs {where} says: {failure.detail or failure.reason}"
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
            reply = self.endpoint.ask(ask(hard=True))
        except NoAnswer as failure:
            raise self._unusable(failure) from failure
        if mode == "write":
            return mode, reply
        if math.isnan(parse_yes_no(reply.text)):
            raise self._no_verdict(reply, why)
        if why:
            warnings.warn(f"judge openai: verdicts are hard, 1 or 0: {why}.", stacklevel=3)
        return "answer", reply

    def _no_verdict(self, reply: ChatCompletion, why: str) -> UserError:
        said = ", ".join(filter(None, (repr(reply.said), reply.lack, why)))
        return UserError(
            f"judge openai: to {TEST_QUESTION!r} {self.model} at {self.endpoint.base_url} answers neither yes nor no ({said}). "
            "If it thinks first, switch that off (extra_body={chat_template_kwargs: {enable_thinking: false}}) or give it "
            "room (max_answer_tokens=2048); mode=write suits a model that is only to write."
        )

    def _unusable(self, failure: NoAnswer) -> UserError:
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


def first_token(reply: ChatCompletion) -> Sequence[Alternative]:
    """The likely first tokens, as far as the server shows them."""
    logprobs = reply.choices[0].logprobs
    return logprobs.content[0].top_logprobs if logprobs and logprobs.content else []


def likely_tokens(reply: ChatCompletion) -> str:
    """The three likeliest first tokens with their probabilities."""
    best = sorted(first_token(reply), key=lambda seen: -seen.logprob)[:3]
    return ", ".join(f"{seen.token[:20]!r} ({math.exp(seen.logprob):.0%})" for seen in best)
