"""Splits of riddles: training, and test sets in and out of its domain.

`train`, `validation` and `test` have riddles of one and two inferences, apart by a hash of their canonical text. `ood` has what
none of these has, and says which: three and four inferences, held-out wordings, or held-out combinations of kinds.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from thinkdraw.lab.reasoning.kinds import KINDS, make_riddle
from thinkdraw.lab.reasoning.riddle import Riddle
from thinkdraw.lab.wording import Example, PromptSplit, clauses, questions
from thinkdraw.types import Prompt

Part = Literal["steps", "words", "combination"]
PARTS: tuple[Part, ...] = ("steps", "words", "combination")
# Pairs of kinds that no training riddle has together, though each has both on their own.
HELD_OUT_COMBINATIONS = (
    frozenset({"order", "exclusion"}),
    frozenset({"count", "knowledge"}),
    frozenset({"mirror", "definition"}),
    frozenset({"sequence", "definition"}),
    frozenset({"exclusion", "reference"}),
)
TASKS = tuple(f"{kind}-{steps}" for steps in (1, 2) for kind in KINDS)
LONG_TASKS = tuple(f"{kind}-{steps}" for steps in (3, 4) for kind in KINDS if (kind, steps) != ("count", 4))


def is_held_out_combination(riddle: Riddle) -> bool:
    return any(pair <= riddle.mix for pair in HELD_OUT_COMBINATIONS)


def split_of(riddle: Riddle) -> PromptSplit:
    """Return the split that a riddle belongs to, whatever its wording."""
    if riddle.steps > 2 or is_held_out_combination(riddle):
        return "ood"
    bucket = hashlib.sha256(riddle.key().encode()).digest()[0] % 10
    return "test" if bucket < 2 else "validation" if bucket == 2 else "train"


def make_example(riddle: Riddle, rng: np.random.Generator, held_out_words: bool = False, id: str = "") -> Example:
    """Write a riddle as a prompt with the facts of its answer."""
    spec = riddle.solve()
    include, exclude = clauses(spec)
    text = riddle.prompt_text(rng, held_out_words)
    prompt = Prompt(text, id, f"{riddle.kind}-{riddle.steps}", include, exclude, questions(spec))
    return Example(prompt, spec, riddle.derivation())


def stream(split: PromptSplit, seed: int) -> Iterator[tuple[Riddle, Example]]:
    """Yield riddles of a split without end, tasks in turn.

    The same seed gives the same ones.
    """
    rng = np.random.default_rng([seed, 71, len(split)])
    index = 0
    while True:
        drawn = _held_out(index, rng) if split == "ood" else _in_domain(TASKS[index % len(TASKS)], split, rng)
        if drawn is not None:
            yield drawn
            index += 1


def _in_domain(task: str, split: PromptSplit, rng: np.random.Generator) -> tuple[Riddle, Example] | None:
    riddle = _draw(task, rng)
    if riddle is None or split_of(riddle) != split or riddle.solve().has_held_out_pair():
        return None
    return riddle, make_example(riddle, rng)


def _held_out(index: int, rng: np.random.Generator) -> tuple[Riddle, Example] | None:
    """Draw an `ood` riddle.

    Half have more inferences, a quarter other words, and a quarter another combination of kinds.
    """
    part = ("steps", "words", "steps", "combination")[index % 4]
    tasks = LONG_TASKS if part == "steps" else TASKS
    task = tasks[index // 2 % len(tasks)] if part == "steps" else tasks[rng.integers(len(tasks))]
    riddle = _draw(task, rng)
    if riddle is None or riddle.solve().has_held_out_pair():
        return None
    if part != "steps" and is_held_out_combination(riddle) != (part == "combination"):
        return None
    if part == "words" and riddle.key() == riddle.text_with_held_out_words():
        return None  # nothing of it has a held-out wording
    return riddle, make_example(riddle, rng, held_out_words=part == "words")


def _draw(task: str, rng: np.random.Generator) -> Riddle | None:
    kind, _, steps = task.partition("-")
    riddle = make_riddle(kind, int(steps), rng)
    if riddle is None:
        return None
    try:
        riddle.solve()
    except ValueError:  # more objects than a scene has room for
        return None
    return riddle


def prompt_set(split: PromptSplit, count: int, seed: int = 0) -> list[Example]:
    """Return `count` riddles that differ in more than their wording.

    Test sets are those of seed 0.
    """
    seen: set[str] = set()
    examples: list[Example] = []
    for riddle, example in stream(split, seed):
        if riddle.key() not in seen:
            seen.add(riddle.key())
            id = f"lab-reasoning-{split}-{len(examples):04d}"
            examples.append(replace(example, prompt=replace(example.prompt, id=id)))
            if len(examples) == count:
                break
    return examples
