"""Runs all filters over the answered items, in one order.

Which rows stay follows from the rows alone, not from when they were answered.
"""

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

CHUNK = 2000  # rows that are compared with the test prompts together
_SENTENCE = re.compile(r"[^.!?]+[.!?]*")

Picture = Callable[[Item], np.ndarray]
Row = tuple[Item, JsonObject]


@dataclass
class Exclusions:
    """Rows that filters leave out. reasons: index → (filter, reason).

    no_verdict: judge → rows that it said nothing about; they stay.
    """

    reasons: dict[int, tuple[str, str]] = field(default_factory=dict)
    no_verdict: dict[str, int] = field(default_factory=dict)

    def add(self, index: int, name: str, reason: str | None) -> None:
        if reason is not None:
            self.reasons.setdefault(index, (name, reason))


def filter_texts(rows: Iterator[Row] | Sequence[Row], settings: FilterSettings) -> Exclusions:
    """Filter by texts: language, length, boilerplate, near duplicates, test prompts.

    Near duplicates and test prompts are searched among the rows that the other filters leave.
    """
    exclusions, candidates, rationales = Exclusions(), [], []
    test = [prompt for path in settings.against for prompt in read_prompts(path)]
    chunk: list[tuple[int, list[Prompt]]] = []

    def check_chunk() -> None:
        for row, reason in rules.match_test_prompts([prompts for _, prompts in chunk], test).items():
            exclusions.add(chunk[row][0], "test prompt", reason)
        chunk.clear()

    for item, answer in rows:
        rationale = answer["detailed_caption"]
        if settings.language:
            exclusions.add(item.index, "language", rules.wrong_language(rationale, settings.language))
        exclusions.add(item.index, "length", rules.bad_length(rationale, settings.min_words, settings.max_words))
        if settings.boilerplate:
            exclusions.add(item.index, "boilerplate", rules.boilerplate(all_texts(answer)))
        if item.index in exclusions.reasons:
            continue
        candidates.append(item.index)
        rationales.append(rationale)
        if test:
            texts = [Prompt(text) for text in all_texts(answer)]
            chunk.append((item.index, [item.prompt, *texts] if item.prompt.text else texts))
            if len(chunk) == CHUNK:
                check_chunk()
    check_chunk()
    if settings.min_jaccard is not None:
        # Only among rows that stay so far: where the first of two equal rows has gone, the second must stay.
        staying = [row for row, index in enumerate(candidates) if index not in exclusions.reasons]
        for row, first in rules.repeats([rationales[row] for row in staying], settings.min_jaccard).items():
            exclusions.add(candidates[staying[row]], "near duplicate", f"of row {candidates[staying[first]]}")
    return exclusions


def all_texts(answer: JsonObject) -> list[str]:
    """List all prompts of an answer, in all styles, and its rationales."""
    return [*all_prompts({"augmented_prompts": answer}), answer["detailed_caption"], answer["step_by_step"]]


def claims_of(answer: JsonObject, settings: ContradictionSettings) -> list[str]:
    if settings.claims == "objects":
        return answer["object_prompts"][: settings.max_claims]
    sentences = (sentence.strip() for sentence in _SENTENCE.findall(answer["detailed_caption"]))
    return [sentence for sentence in sentences if sentence][: settings.max_claims]


def filter_contradictions(
    queue: Queue, rows: Iterator[Row], picture: Picture, settings: ContradictionSettings, judge: Questioner, exclusions: Exclusions
) -> None:  # fmt: skip
    """Leave out rows whose picture does not show what the rationale claims.

    Verdicts are stored in the queue, so that each is asked for once.
    """
    known = [queue.verdicts(_key(settings, k, judge)) for k in range(settings.max_claims)]
    silent = 0
    for item, answer in rows:
        if item.index in exclusions.reasons:
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
        reason = rules.contradiction(values, settings.min_p_yes, settings.max_frac)
        exclusions.add(item.index, "contradiction", reason)
    exclusions.no_verdict["contradiction"] = silent


def filter_scores(
    queue: Queue,
    rows: Iterator[Row],
    picture: Picture,
    settings: AestheticSettings,
    judge: Scorer,
    exclusions: Exclusions,
) -> None:
    """Leave out rows whose picture scores too low."""
    key, silent = _key(settings, 0, judge), 0
    known = queue.verdicts(key)
    for item, answer in rows:
        if item.index in exclusions.reasons:
            continue
        if item.index not in known:
            score = float(judge.score(torch.from_numpy(np.array(picture(item)))[None], [answer["short_caption"]])[0])
            known[item.index] = score
            queue.add_verdicts(key, {item.index: score})
        silent += known[item.index] != known[item.index]
        exclusions.add(item.index, "aesthetic", rules.low_score(known[item.index], settings.min_score))
    exclusions.no_verdict["aesthetic"] = silent


def _key(settings: ContradictionSettings | AestheticSettings, number: int, judge: object) -> str:
    """Make the key of a stored verdict, of all that the verdict depends on.

    These are the settings and the judge's weights.
    """
    identity = settings.model_dump_json(exclude={"min_p_yes", "max_frac", "min_score"}) + (
        AnyJudge(judge).revision or ""
    )
    return f"{hashlib.sha256(identity.encode()).hexdigest()[:16]}/{number}"
