"""All filters over the answered items, in one order: what stays follows from the rows and not from when they were answered."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from thinkdraw.corpus.filters import filters as rules
from thinkdraw.corpus.queue import Queue
from thinkdraw.corpus.settings import AestheticSettings, ContradictionSettings, FilterSettings
from thinkdraw.corpus.sources import Item
from thinkdraw.data.corpus_rows import all_prompts
from thinkdraw.data.prompt_files import read_prompts
from thinkdraw.rewards.judges_of import AnyJudge
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt, Questioner, Scorer

PART = 2000
_SENTENCE = re.compile(r"[^.!?]+[.!?]*")

Picture = Callable[[Item], np.ndarray]
Row = tuple[Item, JsonObject]


@dataclass
class Dropped:
    """reasons: index → (filter, reason). no_verdict: judge → rows that it said nothing about, which stay."""

    reasons: dict[int, tuple[str, str]] = field(default_factory=dict)
    no_verdict: dict[str, int] = field(default_factory=dict)

    def add(self, index: int, name: str, reason: str | None) -> None:
        if reason is not None:
            self.reasons.setdefault(index, (name, reason))


def filter_texts(rows: Iterator[Row] | Sequence[Row], settings: FilterSettings) -> Dropped:
    """Language, length, boilerplate, then near duplicates and test prompts among what is left."""
    dropped, left, rationales = Dropped(), [], []
    test = [prompt for path in settings.against for prompt in read_prompts(path)]
    part: list[tuple[int, list[Prompt]]] = []

    def check_part() -> None:
        for row, reason in rules.leaking([prompts for _, prompts in part], test).items():
            dropped.add(part[row][0], "test prompt", reason)
        part.clear()

    for item, answer in rows:
        rationale = answer["detailed_caption"]
        if settings.language:
            dropped.add(item.index, "language", rules.wrong_language(rationale, settings.language))
        dropped.add(item.index, "length", rules.bad_length(rationale, settings.min_words, settings.max_words))
        if settings.boilerplate:
            dropped.add(item.index, "boilerplate", rules.boilerplate(texts_of(answer)))
        if item.index in dropped.reasons:
            continue
        left.append(item.index)
        rationales.append(rationale)
        if test:
            texts = [Prompt(text) for text in texts_of(answer)]
            part.append((item.index, [item.prompt, *texts] if item.prompt.text else texts))
            if len(part) == PART:
                check_part()
    check_part()
    if settings.min_jaccard is not None:
        # Only rows that stay so far: a repeat of a row that goes is the one that is left.
        rows_left = [row for row, index in enumerate(left) if index not in dropped.reasons]
        for row, first in rules.repeats([rationales[row] for row in rows_left], settings.min_jaccard).items():
            dropped.add(left[rows_left[row]], "near duplicate", f"of row {left[rows_left[first]]}")
    return dropped


def texts_of(answer: JsonObject) -> list[str]:
    """All prompts that can be drawn, of all styles, and the rationales."""
    return [*all_prompts({"augmented_prompts": answer}), answer["detailed_caption"], answer["step_by_step"]]


def claims_of(answer: JsonObject, settings: ContradictionSettings) -> list[str]:
    if settings.claims == "objects":
        return answer["object_prompts"][: settings.max_claims]
    sentences = (found.strip() for found in _SENTENCE.findall(answer["detailed_caption"]))
    return [sentence for sentence in sentences if sentence][: settings.max_claims]


def filter_contradictions(
    queue: Queue, rows: Iterator[Row], picture: Picture, settings: ContradictionSettings, judge: Questioner, dropped: Dropped
) -> None:  # fmt: skip
    """Rows whose picture does not show what is said; verdicts are kept in the queue, so that each is asked for once."""
    known = [queue.verdicts(_key(settings, k, judge)) for k in range(settings.max_claims)]
    silent = 0
    for item, answer in rows:
        if item.index in dropped.reasons:
            continue
        claims = claims_of(answer, settings)
        p_yes = [known[k].get(item.index) for k in range(len(claims))]
        if None in p_yes:
            questions = [settings.question.replace("{claim}", claim) for claim in claims]
            pictures = torch.from_numpy(np.array(picture(item)))[None].expand(len(claims), -1, -1, -1)
            p_yes = judge.answer(pictures, questions).float().tolist()
            for k, p in enumerate(p_yes):
                queue.add_verdicts(_key(settings, k, judge), {item.index: p})
        values = [float("nan") if p is None else p for p in p_yes]
        silent += any(p != p for p in values)
        reason = rules.contradicted(values, settings.min_p_yes, settings.max_frac)
        dropped.add(item.index, "contradiction", reason)
    dropped.no_verdict["contradiction"] = silent


def filter_scores(
    queue: Queue, rows: Iterator[Row], picture: Picture, settings: AestheticSettings, judge: Scorer, dropped: Dropped
) -> None:
    """Rows whose picture scores too low."""
    key, silent = _key(settings, 0, judge), 0
    known = queue.verdicts(key)
    for item, answer in rows:
        if item.index in dropped.reasons:
            continue
        if item.index not in known:
            score = float(judge.score(torch.from_numpy(np.array(picture(item)))[None], [answer["short_caption"]])[0])
            known[item.index] = score
            queue.add_verdicts(key, {item.index: score})
        silent += known[item.index] != known[item.index]
        dropped.add(item.index, "aesthetic", rules.low_score(known[item.index], settings.min_score))
    dropped.no_verdict["aesthetic"] = silent


def _key(settings: ContradictionSettings | AestheticSettings, number: int, judge: object) -> str:
    """Of a verdict: other settings ask another question, and other weights answer it otherwise."""
    asked = settings.model_dump_json(exclude={"min_p_yes", "max_frac", "min_score"}) + (AnyJudge(judge).revision or "")
    return f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}/{number}"
