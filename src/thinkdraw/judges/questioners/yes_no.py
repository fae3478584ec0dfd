"""Yes and no: as an answer's first word, as tokens, and as a probability."""

import math
import re
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from thinkdraw.errors import UserError
from thinkdraw.runtime.chat.thoughts import strip_thoughts

QUESTION_FORMAT = "{question} Answer yes or no."
"""The default message to a chat model; the same for local and served models."""

_SPACE_MARKS = " \t\n▁Ġ"  # how vocabularies write the space before a word
_ANSWER = re.compile(
    r"""(?:[\s"'“‘*_`(\[]|<[A-Za-z]\w*>)*(yes|no)"""
    r"""(?=$|[\s.,;:!?"'”’*`)\]—。，！？]|</|<\||_+(?!\w))(?!\s+or\s+(?:yes|no)\b)""",
    flags=re.IGNORECASE,
)
_SAYS_HOW = re.compile(r"\b(?:answer|reply|respond|say)\b[^.?!]{0,40}\byes\W{1,3}or\W{1,3}no\b[^?]*\Z", re.IGNORECASE)


def parse_yes_no(text: str | None) -> float:
    """Read an answer: 1 for yes, 0 for no, NaN for anything else.

    Thoughts, spaces, quotes, opening brackets, tags and Markdown marks before the answer are skipped. The first word
    must then be yes or no in any case, followed by the end, a space, a tag or punctuation (. , ; : ! ? quotes, closing
    brackets, Markdown). What comes after does not count, except that "yes or no" only repeats the question.
    "Yes/no", "no-one", "not", "The answer is yes", "y", "true" and an empty text are no verdict.
    """
    match = _ANSWER.match(strip_thoughts(text or ""))
    return math.nan if match is None else float(match[1].lower() == "yes")


def read_token(token: str) -> Literal["yes", "no"] | None:
    """Say which of yes and no a token spells, in any case, with or without a space."""
    word = token.strip(_SPACE_MARKS).lower()
    return word if word in ("yes", "no") else None  # type: ignore[return-value]


def yes_no_ids(tokenizer: PreTrainedTokenizerBase, judge: str) -> tuple[Tensor, Tensor]:
    """List all tokens that spell yes, and all that spell no: two (K,) int64.

    Raises UserError if a word has no token.
    """
    ids: dict[str | None, list[int]] = {"yes": [], "no": []}
    for token, index in tokenizer.get_vocab().items():
        ids.setdefault(read_token(token), []).append(index)
    for word in ("yes", "no"):
        if not ids[word]:
            raise UserError(
                f"judge {judge}: its tokenizer has no token for {word!r}, which P(yes) needs. "
                "Use a checkpoint whose vocabulary has it, or another judge."
            )
    return torch.tensor(sorted(ids["yes"])), torch.tensor(sorted(ids["no"]))


def p_yes(yes: Tensor, no: Tensor, min_mass: float) -> Tensor:
    """Divide yes by yes + no, two probabilities: (B,) float32 in 0..1.

    NaN where both together are below `min_mass`. A model that puts almost all its probability elsewhere has not
    answered, and the ratio of two tiny remainders says nothing.
    """
    mass = (yes + no).double()
    return torch.where(mass >= min_mass, yes.double() / mass, math.nan).float()


def format_question(question_format: str, question: str) -> str:
    """Put a question into its format, as a chat model gets it.

    The default format is left out where the question itself already says to answer yes or no.
    """
    says_how = question_format == QUESTION_FORMAT and _SAYS_HOW.search(question)
    return question if says_how else question_format.replace("{question}", question)


def check_question_format(text: str) -> None:
    """Raise UserError unless the format has a place for the question."""
    if "{question}" not in text:
        raise UserError(f"question_format={text!r}: it must hold {{question}}, which stands for the question.")


def check_pairs(pictures: Tensor, questions: Sequence[str]) -> None:
    """Raise an error unless there is one question, not empty, for each uint8 picture.

    ValueError for the form or number, UserError for an empty question.
    """
    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3:
        raise ValueError(f"pictures of {pictures.dtype} {tuple(pictures.shape)}: expected uint8 (B, H, W, 3).")
    if len(pictures) != len(questions):
        raise ValueError(f"{len(pictures)} pictures and {len(questions)} questions: give one question for each.")
    for row, question in enumerate(questions):
        if not question.strip():
            raise UserError(f"question {row + 1} of {len(questions)} is empty: a judge needs something to look for.")


def single_token(tokenizer: PreTrainedTokenizerBase, word: str, judge: str) -> int:
    """Return the id of a word that is one token.

    Raises UserError where the word is no token, or several.
    """
    ids = tokenizer(word, add_special_tokens=False).input_ids
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise UserError(
            f"judge {judge}: its tokenizer has no token for {word!r}, which P(yes) needs. "
            "Use a checkpoint whose vocabulary has it, or another judge."
        )
    return ids[0]
