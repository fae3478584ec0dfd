"""Prompts of the lab in families: three mirror benchmarks, one is of riddles.

`geneval`: GenEval's six tasks. `compbench`: T2I-CompBench-like sentences. `dense`: DPG-like descriptions with a question graph.
`reasoning`: riddles, whose scene has to be worked out (`lab/reasoning`).
Each prompt has its structure. Splits are fixed and disjoint: train, validation and in-domain test come from `Spec.split`; `ood`
draws from held-out pairs, counts, templates and relation wordings, none of which occurs in the others.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np

from thinkdraw.errors import UserError
from thinkdraw.lab.reasoning import sets as riddles
from thinkdraw.lab.scenes import BACKGROUNDS, COLORS
from thinkdraw.lab.shapes import SHAPES, SIZES
from thinkdraw.lab.specs import HELD_OUT_PAIRS, RELATIONS, ObjectSpec, Spec
from thinkdraw.lab.wording import (
    HELD_OUT_OPENINGS,
    HELD_OUT_WORDINGS,
    OPENINGS,
    SENTENCES,
    WORDINGS,
    Example,
    PromptSplit,
    clauses,
    noun_phrase,
    questions,
)
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt

Family = Literal["geneval", "compbench", "dense", "reasoning"]
Item = TypeVar("Item")
MAX_STALE = 20_000  # after so many draws in a row without a new prompt a task has run out
GENEVAL_TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COMPBENCH_TASKS = ("color", "shape", "texture", "spatial", "numeracy", "complex")


def _pick(rng: np.random.Generator, items: tuple[Item, ...]) -> Item:
    return items[rng.integers(len(items))]


def _shapes(rng: np.random.Generator, count: int) -> list[str]:
    return [SHAPES[i] for i in rng.choice(len(SHAPES), size=count, replace=False)]


def _color(rng: np.random.Generator, shape: str, held_out: bool) -> str:
    """Draw a colour for the shape: one of its trained pairs, or its held-out one."""
    colors = tuple(c for c in COLORS if ((shape, c) in HELD_OUT_PAIRS) == held_out)
    return _pick(rng, colors)


def _modifiers(rng: np.random.Generator) -> JsonObject:
    """Draw a size, a texture, both or none.

    Half of the nouns carry some, so that every task has more prompts than a test set needs.
    """
    size = _pick(rng, SIZES) if rng.random() < 0.35 else None
    texture = _pick(rng, ("striped", "dotted")) if rng.random() < 0.25 else None
    return {"size": size, "texture": texture}


def geneval_spec(
    task: str, rng: np.random.Generator, *, held_out_pair: bool = False, counts: tuple[int, ...] = (2, 3, 4)
) -> Spec:
    shapes = _shapes(rng, 2)
    objects = [ObjectSpec(shape, **_modifiers(rng)) for shape in shapes]
    match task:
        case "single_object":
            return Spec((objects[0],))
        case "two_object":
            return Spec(tuple(objects))
        case "counting":
            return Spec((ObjectSpec(shapes[0], **_modifiers(rng), count=_pick(rng, counts)),))
        case "colors":
            return Spec((ObjectSpec(shapes[0], _color(rng, shapes[0], held_out_pair), **_modifiers(rng)),))
        case "position":
            return Spec(tuple(objects), ((1, _pick(rng, RELATIONS), 0),))
        case "color_attr":
            return Spec(tuple(ObjectSpec(s, _color(rng, s, held_out_pair)) for s in shapes))
    raise ValueError(f"task={task!r}: one of {', '.join(GENEVAL_TASKS)}.")


def compbench_spec(
    task: str, rng: np.random.Generator, *, held_out_pair: bool = False, counts: tuple[int, ...] = (1, 2, 3)
) -> Spec:
    a, b = _shapes(rng, 2)
    match task:
        case "color":
            return Spec((ObjectSpec(a, _color(rng, a, held_out_pair)), ObjectSpec(b, _color(rng, b, held_out_pair))))
        case "shape":
            return Spec((ObjectSpec(a, size=_pick(rng, SIZES)), ObjectSpec(b, size=_pick(rng, SIZES))))
        case "texture":
            return Spec(tuple(ObjectSpec(s, texture=_pick(rng, ("striped", "dotted"))) for s in (a, b)))
        case "spatial":
            return Spec((ObjectSpec(a), ObjectSpec(b)), ((1, _pick(rng, RELATIONS), 0),))
        case "numeracy":
            return Spec((ObjectSpec(a, count=_pick(rng, counts)), ObjectSpec(b, count=_pick(rng, (1, 2)))))
        case "complex":
            full = [
                ObjectSpec(s, _color(rng, s, held_out_pair), _pick(rng, SIZES), _pick(rng, ("striped", "dotted", None)))
                for s in (a, b)
            ]
            return Spec(tuple(full), ((1, _pick(rng, RELATIONS), 0),))
    raise ValueError(f"task={task!r}: one of {', '.join(COMPBENCH_TASKS)}.")


def dense_spec(
    task: str, rng: np.random.Generator, *, held_out_pair: bool = False, counts: tuple[int, ...] = ()
) -> Spec:
    shapes = _shapes(rng, int(rng.integers(3, 5)))
    objects = tuple(
        ObjectSpec(s, _color(rng, s, held_out_pair), _pick(rng, SIZES), _pick(rng, ("striped", "dotted", None, None)))
        for s in shapes
    )
    return Spec(objects, ((1, _pick(rng, RELATIONS), 0),), _pick(rng, tuple(BACKGROUNDS)))


def prompt_text(spec: Spec, family: Family, rng: np.random.Generator, *, held_out_words: bool = False) -> str:
    """Write the sentence of a prompt."""
    wordings = HELD_OUT_WORDINGS if held_out_words else WORDINGS
    openings = HELD_OUT_OPENINGS if held_out_words else OPENINGS if family == "geneval" else SENTENCES
    if family == "dense":
        i, relation, j = spec.relations[0]
        placed = f"the {spec.objects[i].shape} is {_pick(rng, wordings[relation])} the {spec.objects[j].shape}"
        listed = ", ".join(noun_phrase(w) for w in spec.objects[:-1]) + f" and {noun_phrase(spec.objects[-1])}"
        return f"{_pick(rng, openings).format(listed)} on a {spec.background} background. {placed}."
    if spec.relations:
        i, relation, j = spec.relations[0]
        wording = wordings[relation][0] if family == "geneval" else _pick(rng, wordings[relation])
        body = f"{noun_phrase(spec.objects[i])} {wording} {noun_phrase(spec.objects[j])}"
    else:
        body = " and ".join(noun_phrase(w) for w in spec.objects)
    return _pick(rng, openings).format(body)


# Families whose prompts are written from what they demand.
SPECS: dict[Family, tuple[Callable[..., Spec], tuple[str, ...]]] = {
    "geneval": (geneval_spec, GENEVAL_TASKS),
    "compbench": (compbench_spec, COMPBENCH_TASKS),
    "dense": (dense_spec, ("dense",)),
}
FAMILIES: tuple[Family, ...] = (*SPECS, "reasoning")


def make_example(
    spec: Spec, family: Family, task: str, rng: np.random.Generator, *, held_out_words: bool = False, id: str = ""
) -> Example:
    include, exclude = clauses(spec)
    text = prompt_text(spec, family, rng, held_out_words=held_out_words)
    return Example(Prompt(text, id, task, include, exclude, questions(spec)), spec)


def family_of(benchmark: str) -> Family | None:
    """Return the family of "lab-geneval" and its like; None for other benchmarks."""
    return next((family for family in FAMILIES if benchmark == f"lab-{family}"), None)


def stream(family: Family, split: PromptSplit, seed: int) -> Iterator[Example]:
    """Yield examples of a family and split without end, tasks in turn.

    The same seed gives the same examples. Training draws may repeat a prompt.
    """
    if family == "reasoning":
        yield from (example for _, example in riddles.stream(split, seed))
    make, tasks = SPECS[family]
    rng = np.random.default_rng([seed, len(family), len(split)])
    index = 0
    while True:
        task = tasks[index % len(tasks)]
        if split == "ood":
            example = _held_out(make, family, task, rng)
        else:
            spec = make(task, rng)
            example = make_example(spec, family, task, rng) if spec.split() == split else None
        if example is not None:
            yield example
            index += 1


def _held_out(make: Callable[..., Spec], family: Family, task: str, rng: np.random.Generator) -> Example | None:
    """Draw an `ood` example.

    It has a held-out pair, a held-out count or held-out words, whichever the task allows.
    """
    if task in ("colors", "color_attr", "color", "complex", "dense") and rng.random() < 0.5:
        return make_example(make(task, rng, held_out_pair=True), family, task, rng)
    if task in ("counting", "numeracy") and rng.random() < 0.5:
        return make_example(make(task, rng, counts=(5,)), family, task, rng)
    return make_example(make(task, rng), family, task, rng, held_out_words=True)


def prompt_set(family: Family, split: PromptSplit, count: int, seed: int = 0) -> list[Example]:
    """Return `count` examples with different keys (different texts for `ood`).

    Test sets are those of seed 0. Tasks come in turn. A task with few different prompts (a single object) runs out and the others fill
    up: each to 1.6 times its even share, and further where that is not enough. Raises UserError where there are fewer prompts.
    """
    if family == "reasoning":
        return riddles.prompt_set(split, count, seed)
    seen: set[str] = set()
    last_new = 0
    out: list[Example] = []
    tasks = SPECS[family][1]
    per_task = {task: int(1.6 * count / len(tasks)) + 1 for task in tasks}
    for tries, example in enumerate(stream(family, split, seed)):
        name = example.prompt.text if split == "ood" else example.spec.key()
        if name not in seen and per_task[example.prompt.tag] > 0:
            seen.add(name)
            last_new = tries
            per_task[example.prompt.tag] -= 1
            id = f"lab-{family}-{split}-{len(out):04d}"
            out.append(replace(example, prompt=replace(example.prompt, id=id)))
            if len(out) == count:
                return out
        if tries - last_new > MAX_STALE:
            if min(per_task.values()) > 0:
                raise UserError(
                    f"count={count}: there are {len(out)} different {family} prompts of split {split!r}. Lower it."
                )
            per_task, last_new = dict.fromkeys(tasks, count), tries
    raise AssertionError("the stream is endless")
