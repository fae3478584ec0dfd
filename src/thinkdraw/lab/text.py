"""The lab's text tokenizer: byte-level BPE in Janus's published layout, trained on the lab's own sentences."""

from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from thinkdraw.lab.facts import QUESTION_TYPES, random_question
from thinkdraw.lab.prompts import HELD_OUT_OPENINGS, HELD_OUT_WORDINGS, SPECS, stream
from thinkdraw.lab.rationales import write

SPECIAL_TOKENS = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<image_placeholder>",
    "<begin_of_image>",
    "<end_of_image>",
    "<|User|>",
    "<|Assistant|>",
)


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """Prompts, rationales and questions of the training split, and the held-out words, so that no word falls apart."""
    rng = np.random.default_rng(seed)
    streams = [stream(family, "train", seed) for family in SPECS]  # pyright: ignore[reportArgumentType]
    for index in range(count):
        made = next(streams[index % len(streams)])
        scene = made.scene(rng)
        yield f": {made.prompt.text}\n\n"
        yield f" {write(scene, rng)}"
        question = random_question(scene, QUESTION_TYPES[index % len(QUESTION_TYPES)], index % 2 == 0, rng)
        yield f"\n{question}\n\n: yes no Yes No"
    for wording in (*HELD_OUT_OPENINGS, *(w for words in HELD_OUT_WORDINGS.values() for w in words)):
        yield from [f" {wording} five draw plain solid"] * 20


def train_text_tokenizer(vocab_size: int = 1024, count: int = 3000) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences(count), trainer)
    return tokenizer
