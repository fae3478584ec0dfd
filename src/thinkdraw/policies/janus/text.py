"""Texts to token ids in Janus's published form, and its special ids."""

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from thinkdraw.errors import UserError
from thinkdraw.runtime.control_tokens import token_escaper
from thinkdraw.types import CheckItem

# `User:` and `Assistant:` without the bars, as in some papers' code, cost Janus-Pro-1B ten GenEval points and more.
PROMPT_FORM = "<|User|>: {text}\n\n<|Assistant|>:"


class JanusText:
    """The tokenizer of a Janus checkpoint, with its special tokens by name.

    bos, eos, pad: begin and end of text, padding.
    boi, eoi: begin and end of image.
    image: stands for a patch of a picture that is shown.
    system_prompt: whether questions begin with Janus's system prompt, as for the published checkpoints. Drawing never
        uses it.
    suppressed: (vocabulary,) bool, ids that are never sampled in a thought.
    """

    def __init__(
        self, tokenizer, image_token_id: int, vocabulary: int, num_image_tokens: int, system_prompt: bool = False
    ):
        self.tokenizer, self.num_image_tokens = tokenizer, num_image_tokens
        self.before_questions = DEFAULT_SYSTEM_PROMPT if system_prompt else ""
        self.bos, self.eos, self.pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        self.boi, self.eoi = tokenizer.boi_token_id, tokenizer.eoi_token_id
        self.image = image_token_id
        never = [self.bos, self.pad, self.image, self.eoi]
        # eos stays possible even where a checkpoint pads with it, because it ends a thought. Ids beyond the tokenizer's
        # exist only because the head is padded to a round size.
        never = [i for i in never if i != self.eos] + list(range(len(tokenizer), vocabulary))
        self.suppressed = torch.zeros(vocabulary, dtype=torch.bool)
        self.suppressed[never] = True
        self.controls = frozenset({self.bos, self.eos, self.pad, self.boi, self.eoi, self.image})
        self._escape = token_escaper(tokenizer)

    @property
    def vocabulary_hash(self) -> str:
        """SHA-256 of the vocabulary with its ids."""
        return hashlib.sha256(json.dumps(sorted(self.tokenizer.get_vocab().items())).encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Encode a text, without BOS; special tokens that it spells become their ids."""
        return self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    def prompt(self, text: str, system_prompt: str | None = None) -> list[int]:
        """Encode a prompt in the published form, after BOS.

        system_prompt: stands in front of the user's turn, as in DeepSeek's conversations.
        Raises UserError for an empty text, and for one that spells a control token.
        """
        if not text.strip():
            raise UserError(f"prompt {text!r} is empty. Give it at least one word.")
        before = f"{system_prompt}\n\n" if system_prompt else ""
        ids = self.encode(before + PROMPT_FORM.format(text=text.strip()))
        if clash := self.controls & set(ids):
            name = self.tokenizer.convert_ids_to_tokens(min(clash))
            raise UserError(f"prompt {text[:60]!r} spells the control token {name}. Leave that out.")
        return [self.bos, *ids]

    def thought(self, text: str) -> list[int]:
        """Encode a thought, which follows `<|Assistant|>:` after one space.

        An empty thought has no ids.
        """
        return self.encode(" " + text.strip()) if text.strip() else []

    def thought_text(self, ids: Sequence[int]) -> str:
        """Decode a thought's ids, without special tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def rewritten(self, prompt: str, thought: str) -> list[int]:
        """Encode the fresh context of a `rewrite` picture, begin-of-image included.

        Special tokens that a thought spells in plain letters are broken up. T2I-R1 (arXiv 2505.00703).
        """
        return [*self.prompt(f"{prompt.strip()}. {self._escape(thought)}"), self.boi]

    def question(self, text: str) -> list[int]:
        """Encode a question about one picture, as JanusProcessor does.

        Special tokens in the question are broken up.
        """
        picture = [self.boi, *[self.image] * self.num_image_tokens, self.eoi]
        before, after = PROMPT_FORM.split("{text}")
        question = f"\n{self._escape(text.strip())}{after}"
        return [self.bos, *self.encode(self.before_questions + before), *picture, *self.encode(question)]

    def answer(self, text: str) -> list[int]:
        """Encode the answer to a `question`; special tokens in it are broken up too."""
        return self.thought(self._escape(text))

    def single_tokens(self, word: str) -> Tensor:
        """Find the ids of a word's spellings that are one token each.

        Spellings are with and without a leading space, and capitalised. Raises UserError if there is none.
        """
        spellings = [self.encode(s) for s in (word, " " + word, word.capitalize(), " " + word.capitalize())]
        ids = sorted({s[0] for s in spellings if len(s) == 1 and s[0] != self.tokenizer.unk_token_id})
        if not ids:
            raise UserError(
                f"the tokenizer of {self.tokenizer.name_or_path} has no single token for {word!r}, which answering "
                "yes/no questions needs. Use a checkpoint whose vocabulary has it, or another judge."
            )
        return torch.tensor(ids)

    def check(self) -> list[CheckItem]:
        """Check that prompts have the published form, and special tokens exist and differ."""
        decoded = self.tokenizer.decode(self.prompt("hello")[1:])
        form = PROMPT_FORM.format(text="hello")
        special = {
            "bos": self.bos,
            "eos": self.eos,
            "pad": self.pad,
            "begin of image": self.boi,
            "end of image": self.eoi,
            "image": self.image,
        }
        ids = [number for name, number in special.items() if name != "pad"]  # pad may share the id of another token
        distinct = len(set(ids)) == len(ids) and None not in special.values()
        listed = ", ".join(f"{name} {number}" for name, number in special.items())
        return [
            CheckItem("prompt template", repr(decoded), repr(form), decoded == form),
            CheckItem("special tokens", listed, "present and distinct", distinct),
        ]

    def blanked(self, ids: Tensor, is_image: Tensor | None = None) -> Tensor:
        """Blank ids for guidance's unconditional pass: text becomes pad.

        BOS, begin-of-image and the ids where is_image is True (codes) stay. These pads are attended to like any
        token, as in Janus's own code: they are not padding.
        """
        stays = (ids == self.bos) | (ids == self.boi)
        if is_image is not None:
            stays |= is_image
        return torch.where(stays, ids, self.pad)
