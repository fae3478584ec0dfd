"""How varied a set of prompts is: its n-grams, distances and covered words."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thinkdraw.data.leak_guard import normalise
from thinkdraw.data.structure.words import MATERIALS, SHAPES, TEXTURES
from thinkdraw.lab.shapes import SIZES
from thinkdraw.types import Prompt

_ATTRIBUTES = {*MATERIALS, *TEXTURES, *SHAPES, *SIZES}


@dataclass(frozen=True)
class TextDiversity:
    """Measures of a prompt set's variety.

    distinct_n: different n-grams per n-gram, 0..1 (Li et al. 2016, arXiv 1510.03055); it falls as a set grows. jaccard_distance: 1 − the
    fraction of shared words, mean over sampled pairs of prompts, 0..1. nouns, attributes, relations: number of different ones.
    """

    distinct_1: float
    distinct_2: float
    distinct_3: float
    jaccard_distance: float
    nouns: int
    attributes: int
    relations: int


def text_diversity(prompts: Sequence[Prompt], seed: int = 0, max_pairs: int = 2000) -> TextDiversity:
    """Measure the variety of at least one prompt.

    The distance is 0 for a single one. seed: of the sample of pairs.
    """
    lines = [normalise(p.text).split() for p in prompts]
    nouns, attributes, relations = set(), set(), set()
    for prompt in prompts:
        for clause in prompt.include:
            words, noun = split_label(clause["class"])
            nouns.add(noun)
            attributes |= {*words, *(clause[k] for k in ("color", "texture", "shape") if k in clause)}
            relations |= {clause[k][0] for k in ("position", "relation") if k in clause}
    return TextDiversity(
        *(_distinct(lines, n) for n in (1, 2, 3)),
        jaccard_distance=_distance([set(line) for line in lines], np.random.default_rng(seed), max_pairs),
        nouns=len(nouns), attributes=len(attributes), relations=len(relations),
    )  # fmt: skip


def split_label(label: str) -> tuple[list[str], str]:
    """Split a clause's class into leading attributes and noun.

    The lab's class is "small striped circle", for example.
    """
    words = label.split()
    count = next((i for i, word in enumerate(words[:-1]) if word not in _ATTRIBUTES), len(words) - 1)
    return words[:count], " ".join(words[count:])


def _distinct(lines: Sequence[Sequence[str]], n: int) -> float:
    grams = [gram for line in lines for gram in zip(*(line[i:] for i in range(n)))]
    return len(set(grams)) / max(1, len(grams))


def _distance(lines: Sequence[set[str]], rng: np.random.Generator, max_pairs: int) -> float:
    if len(lines) < 2:
        return 0.0
    first = rng.integers(len(lines), size=max_pairs)
    second = (first + rng.integers(1, len(lines), size=max_pairs)) % len(lines)
    return float(
        np.mean([1 - len(lines[i] & lines[j]) / max(1, len(lines[i] | lines[j])) for i, j in zip(first, second)])
    )
