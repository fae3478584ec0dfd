"""Makes a prompt set from templates or the lab's families, without test prompts.

The folder holds `prompts.jsonl`, a file per further scale (`prompts_x0.25.jsonl`, …; a smaller set is the beginning of a larger one)
and `card.json`, which describes the set. The same configuration gives the same files, except for paraphrases.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from thinkdraw.config import StrictModel
from thinkdraw.data.leak_guard import clause_key, find_leaks, normalise, text_key
from thinkdraw.data.paraphrases import ParaphraseResult, ParaphraseSettings, paraphrase
from thinkdraw.data.prompt_files import read_prompts, write_prompts
from thinkdraw.data.structure.words import GROUPS
from thinkdraw.data.templates import COMPBENCH_TASKS, GENEVAL_TASKS, Vocabulary, compbench_prompt, geneval_prompt
from thinkdraw.data.test_sets.hashes import published_tests_among
from thinkdraw.data.text_diversity import TextDiversity, text_diversity
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import SPECS, family_of, make_example
from thinkdraw.runtime.files import atomic_directory, atomic_write_json
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt

if TYPE_CHECKING:
    from thinkdraw.runtime.http import HttpClient

Style = Literal["geneval", "compbench", "lab-geneval", "lab-compbench", "lab-dense"]
Draw = Callable[[str, np.random.Generator], Prompt | None]
"""(task, rng) → a prompt, or None where the draw is not to be used."""

CARD = "card.json"
MAX_STALE = 3000
"""Draws in a row without a new prompt after which a task has run out."""


class PromptSetConfig(StrictModel):
    out: Path = Field(description="Folder of the prompt set; an older set there is replaced.")
    style: Style = Field(
        default="geneval",
        description="Kind of prompts: GenEval's or CompBench's tasks with everyday nouns, or a family of the lab.",
    )
    count: int = Field(default=2000, ge=1, description="Prompts of the set at scale 1.")
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1.0,),
        description="Sizes of nested sets as multiples of `count`; each smaller set is the beginning of the "
        "larger ones.",
    )
    groups: tuple[str, ...] = Field(
        default=(),
        description="Groups of nouns that prompts are made of, such as animals; empty takes all. The lab's "
        "styles take none.",
    )
    against: list[Path] = Field(default=[], description="Test sets that must stay unseen: their prompts are left out.")
    seed: int = Field(
        default=0, ge=0, description="Seed by which prompts are drawn; the same seed gives the same files."
    )
    paraphrase: ParaphraseSettings | None = Field(
        default=None,
        description="Put a share of the prompts into other words, by a language model behind an endpoint; null "
        "leaves all as they are.",
    )

    @field_validator("scales")
    @classmethod
    def _are_positive(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < scale <= 1000 for scale in scales):
            raise ValueError(f"scales={scales}: each must be above 0 and at most 1000. Example: 0.25,0.5,1,2,4")
        return tuple(sorted({*scales, 1.0}))

    @field_validator("groups")
    @classmethod
    def _are_known(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := [name for name in groups if name not in GROUPS]:
            raise ValueError(f"groups: {', '.join(unknown)} is not known; choose from {', '.join(GROUPS)}.")
        return groups

    def sizes(self) -> dict[float, int]:
        """Map scales to numbers of prompts, ascending."""
        return {scale: max(1, round(self.count * scale)) for scale in self.scales}


@dataclass(frozen=True)
class SetFile:
    """One of the nested sets.

    sha256: of its normalised lines, so that two files with the same prompts have the same.
    """

    file: str
    count: int
    sha256: str
    per_task: dict[str, int]
    diversity: TextDiversity


@dataclass(frozen=True)
class PromptSetReport:
    """What was written, and what was left out.

    files: ascending in size. dropped: test set, a file or a published benchmark → prompts left out because of it.
    paraphrases: replies accepted and refused, and texts taken back because they leaked; empty without paraphrasing.
    """

    folder: Path
    files: tuple[SetFile, ...]
    dropped: dict[str, int]
    paraphrases: JsonObject


def make_prompt_set(config: PromptSetConfig, client: "HttpClient | None" = None) -> PromptSetReport:
    """Write the set and its card, all of it or nothing.

    client: for paraphrases, see `paraphrase`. Raises UserError.
    """
    out = config.out
    if out.exists() and not (out / CARD).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not a prompt set. Choose another folder, so that nothing is lost.")
    tests = {str(path): read_prompts(path) for path in config.against}
    test = [prompt for prompts in tests.values() for prompt in prompts]
    owner = [name for name, prompts in tests.items() for _ in prompts]
    total = max(config.sizes().values())

    published: Counter[str] = Counter()
    prompts, leaked_from = collect(_without_published(candidates(config), published), total, test)
    dropped = Counter(owner[index] for index in leaked_from)
    counts: JsonObject = {}
    if config.paraphrase:
        chosen = np.random.default_rng([config.seed, 2]).random(total) < config.paraphrase.frac
        result = paraphrase(prompts, config.paraphrase, client, chosen.tolist())
        prompts, taken_back = _undo_leaking_paraphrases(prompts, result, test)
        counts = {"accepted": result.accepted, "refused": result.refused, "taken_back": taken_back}
    prompts = [replace(p, id=f"{config.style}-{i:06d}") for i, p in enumerate(prompts)]

    with atomic_directory(out) as folder:
        files = [_write(folder, scale, prompts[:size]) for scale, size in config.sizes().items()]
        report = PromptSetReport(out, tuple(files), {name: dropped[name] for name in tests} | published, counts)
        atomic_write_json(folder / CARD, _card(config, report, tests))
    return report


def candidates(config: PromptSetConfig) -> Iterator[Prompt]:
    """Yield different prompts, tasks in turn.

    A task that has run out loses its turn. Ends when all have run out.
    """
    draw, tasks = draw_function(config.style, config.groups)
    streams = [
        _different(draw, task, np.random.default_rng([config.seed, n, *config.style.encode()]))
        for n, task in enumerate(tasks)
    ]
    seen: set[Hashable] = set()
    while streams:
        for stream in list(streams):
            for prompt in stream:
                # Two tasks may make the same prompt: the first keeps it.
                if (key := _key(prompt)) not in seen:
                    seen.add(key)
                    yield prompt
                    break
            else:
                streams.remove(stream)


def _without_published(stream: Iterator[Prompt], counts: Counter[str]) -> Iterator[Prompt]:
    """Leave out published test prompts, and count them by benchmark."""
    for prompt in stream:
        if names := published_tests_among([prompt]):
            counts[names[0]] += 1
        else:
            yield prompt


def _different(draw: Draw, task: str, rng: np.random.Generator) -> Iterator[Prompt]:
    seen: set[Hashable] = set()
    stale = 0
    while stale < MAX_STALE:
        prompt = draw(task, rng)
        if prompt is None or (key := _key(prompt)) in seen:
            stale += 1
            continue
        stale = 0
        seen.add(key)
        yield prompt


def _key(prompt: Prompt) -> Hashable:
    return clause_key(prompt) or text_key(prompt.text)


def draw_function(style: Style, groups: Sequence[str] = ()) -> tuple[Draw, tuple[str, ...]]:
    """Return the function that draws a style's prompts, and the style's tasks.

    The lab's prompts are of its training split.
    """
    if style in ("geneval", "compbench"):
        words = Vocabulary.of(groups)
        draw_prompt, tasks = (
            (geneval_prompt, GENEVAL_TASKS) if style == "geneval" else (compbench_prompt, COMPBENCH_TASKS)
        )
        return (lambda task, rng: draw_prompt(task, rng, words)), tasks
    family = family_of(style)
    assert family is not None  # a Style is geneval, compbench or the lab's
    make_spec, tasks = SPECS[family]

    def draw(task: str, rng: np.random.Generator) -> Prompt | None:
        spec = make_spec(task, rng)
        return make_example(spec, family, task, rng).prompt if spec.split() == "train" else None

    return draw, tasks


def collect(stream: Iterator[Prompt], count: int, test: Sequence[Prompt]) -> tuple[list[Prompt], list[int]]:
    """Take the first `count` prompts that are no test prompt.

    Returns them, and the test prompts for which others were dropped. Raises UserError if the stream ends before.
    """
    kept: list[Prompt] = []
    dropped: list[int] = []
    while len(kept) < count:
        # A few more than are missing, so that the guard needs few rounds; surplus prompts are not used.
        batch = list(islice(stream, count - len(kept) + 64))
        if not batch:
            raise UserError(
                f"there are only {len(kept)} different prompts of this style that no test set has, and {count} are asked "
                "for. Lower count or the largest scale."
            )
        leaks = {leak.train: leak.test for leak in find_leaks(batch, test)}
        for index, prompt in enumerate(batch):
            if index in leaks:
                dropped.append(leaks[index])
            else:
                kept.append(prompt)
            if len(kept) == count:
                break
    return kept, dropped


def _undo_leaking_paraphrases(
    before: Sequence[Prompt], result: ParaphraseResult, test: Sequence[Prompt]
) -> tuple[list[Prompt], int]:
    """Undo each paraphrase that is a test prompt, or another prompt's text."""
    taken_back = {leak.train for leak in find_leaks(result.prompts, test)} | {*published_tests_among(result.prompts)}
    texts = {text_key(prompt.text) for prompt in before}
    for index, (old, new) in enumerate(zip(before, result.prompts)):
        if new is not old:
            if text_key(new.text) in texts:
                taken_back.add(index)
            texts.add(text_key(new.text))
    out = [before[i] if i in taken_back else prompt for i, prompt in enumerate(result.prompts)]
    return out, len(taken_back)


def _write(folder: Path, scale: float, prompts: Sequence[Prompt]) -> SetFile:
    name = "prompts.jsonl" if scale == 1 else f"prompts_x{scale:g}.jsonl"
    write_prompts(folder / name, prompts)
    tasks = Counter(prompt.tag for prompt in prompts)
    return SetFile(name, len(prompts), content_hash(prompts), dict(tasks), text_diversity(prompts))


def content_hash(prompts: Sequence[Prompt]) -> str:
    """Return the sha256 of the normalised texts, a line each, in their order."""
    return hashlib.sha256("".join(normalise(p.text) + "\n" for p in prompts).encode()).hexdigest()


def _card(config: PromptSetConfig, report: PromptSetReport, tests: dict[str, list[Prompt]]) -> JsonObject:
    return {
        "config": config.model_dump(mode="json", exclude={"out"}),
        "files": [asdict(file) for file in report.files],
        "against": [
            {"path": name, "prompts": len(prompts), "sha256": content_hash(prompts), "dropped": report.dropped[name]}
            for name, prompts in tests.items()
        ],
        "published_tests_left_out": {name: count for name, count in report.dropped.items() if name not in tests},
        "paraphrases": report.paraphrases,
    }
