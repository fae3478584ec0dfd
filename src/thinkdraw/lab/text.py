"""The sentences that the lab's text tokenizer is trained on."""

from collections.abc import Iterator

import numpy as np

from thinkdraw.lab.facts import QUESTION_TYPES, random_question
from thinkdraw.lab.prompts import SPECS, stream
from thinkdraw.lab.rationales import write_rationale
from thinkdraw.lab.wording import HELD_OUT_OPENINGS, HELD_OUT_WORDINGS


def sentences(count: int, seed: int = 0) -> Iterator[str]:
    """Yield prompts, rationales and questions of the training split.

    The held-out words follow, so that the tokenizer does not split them into letters.
    """
    rng = np.random.default_rng(seed)
    streams = [stream(family, "train", seed) for family in SPECS]
    for index in range(count):
        example = next(streams[index % len(streams)])
        scene = example.scene(rng)
        yield f": {example.prompt.text}\n\n"
        yield f" {write_rationale(scene, rng)}"
        question = random_question(scene, QUESTION_TYPES[index % len(QUESTION_TYPES)], index % 2 == 0, rng)
        yield f"\n{question}\n\n: yes no Yes No"
    for wording in (*HELD_OUT_OPENINGS, *(w for words in HELD_OUT_WORDINGS.values() for w in words)):
        yield from [f" {wording} five draw plain solid"] * 20
