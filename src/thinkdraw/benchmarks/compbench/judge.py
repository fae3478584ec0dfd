"""T2I-CompBench++ on pictures: each category asks its judges, and the published rules make a score of the answers.

The benchmark and the metric reward both call `CompBenchJudge`, so that they never disagree. The rules themselves, which
need no model, are in compbench_words, compbench_spatial, compbench_numeracy and compbench_complex.
Huang et al. 2023 (arXiv 2307.06350) and 2025 (TPAMI), github.com/Karine-Huang/T2I-CompBench.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from torch import Tensor

from thinkdraw.benchmarks.compbench.ask import ATTRIBUTES, Asks, PromptQuestions
from thinkdraw.benchmarks.compbench.complex import attribute_score, needs, three_in_one
from thinkdraw.benchmarks.compbench.numeracy import numeracy_score
from thinkdraw.benchmarks.compbench.scales import Depth, as_unidet, depth_map
from thinkdraw.errors import UserError
from thinkdraw.rewards.judging import p_yes, run_detector
from thinkdraw.rewards.spatial import mean_depth, score_2d, score_3d
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Detection, Detector, Prompt, Questioner, Scorer

T = TypeVar("T")


@dataclass(frozen=True)
class CompBenchVerdict:
    """score: 0..1, a cosine for non_spatial; NaN = no verdict, and `reason` says whose. raw: what the judges said, JSON.

    parts, of complex prompts: attribute, spatial and action, as far as they are given.
    """

    score: float
    reason: str = ""
    parts: dict[str, float] = field(default_factory=dict)
    raw: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What the judges said about one picture. p_yes: one per question. detections, depth: None = not asked, or no verdict.

    Boxes and depth map (H', W') are in the pixels of `as_unidet`. cosine: NaN = not asked, or no verdict.
    """

    p_yes: Sequence[float] = ()
    detections: Sequence[Detection] | None = None
    depth: np.ndarray | None = None
    cosine: float = math.nan


class CompBenchJudge:
    """Scores pictures in the category that each prompt's `tag` names.

    questioner: P(yes) about noun chunks (color, shape, texture, complex). detector: relations, numeracy, complex.
    depth: 3D relations. scorer: CLIP's cosine (non_spatial, complex). A judge may be left out where no prompt needs it.
    """

    def __init__(
        self, asker: Asks, questioner: Questioner | None = None, detector: Detector | None = None,
        depth: Depth | None = None, scorer: Scorer | None = None,
    ):  # fmt: skip
        self.asker = asker
        self.questioner, self.detector, self.depth, self.scorer = questioner, detector, depth, scorer

    def __call__(self, pictures: Tensor, prompts: Sequence[Prompt]) -> list[CompBenchVerdict]:
        """pictures: (B, H, W, 3) uint8, one per prompt. Raises UserError where a judge or a word list is needed and absent."""
        asks = [self.asker(prompt) for prompt in prompts]
        answers = (self._p_yes, self._detections, self._depths, self._cosines)
        return [
            verdict_on(ask, Evidence(*seen)) for ask, *seen in zip(asks, *(said(pictures, asks) for said in answers))
        ]

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raises UserError, as judging their pictures would, where a judge or a list of words is needed and absent."""
        for ask in map(self.asker, prompts):
            needed = {
                "questioner": bool(ask.questions), "detector": bool(ask.labels()), "depth": ask.category == "3d_spatial",
                "scorer": bool(ask.text),
            }  # fmt: skip
            for role in (role for role, is_needed in needed.items() if is_needed):
                _given(role, getattr(self, role))

    def _p_yes(self, pictures: Tensor, asks: Sequence[PromptQuestions]) -> list[list[float]]:
        questions = [ask.questions for ask in asks]
        if not any(questions):
            return [[] for _ in asks]
        return [given.tolist() for given in p_yes(_given("questioner", self.questioner), pictures, questions)]

    def _detections(self, pictures: Tensor, asks: Sequence[PromptQuestions]) -> list[list[Detection] | None]:
        height, width = pictures.shape[1:3]

        def look(rows: list[int]) -> list[list[Detection] | None]:
            labels = [asks[row].labels() for row in rows]
            found = run_detector(_given("detector", self.detector), pictures[rows], labels)
            return [None if seen is None else as_unidet(seen, width, height) for seen in found]

        return _where([bool(ask.labels()) for ask in asks], look, None)

    def _depths(self, pictures: Tensor, asks: Sequence[PromptQuestions]) -> list[np.ndarray | None]:
        def look(rows: list[int]) -> list[np.ndarray | None]:
            return [depth_map(found) for found in _given("depth", self.depth).depth(pictures[rows]).cpu().numpy()]

        return _where([ask.category == "3d_spatial" for ask in asks], look, None)

    def _cosines(self, pictures: Tensor, asks: Sequence[PromptQuestions]) -> list[float]:
        def look(rows: list[int]) -> list[float]:
            return _given("scorer", self.scorer).score(pictures[rows], [asks[row].text for row in rows]).tolist()

        return _where([bool(ask.text) for ask in asks], look, math.nan)


def _where(wanted: Sequence[bool], look: Callable[[list[int]], Sequence[T]], otherwise: T) -> list[T]:
    """What `look` says about the wanted rows, and `otherwise` for the others."""
    rows = [row for row, is_wanted in enumerate(wanted) if is_wanted]
    found = dict(zip(rows, look(rows), strict=True)) if rows else {}
    return [found.get(row, otherwise) for row in range(len(wanted))]


def _given(role: str, judge: T | None) -> T:
    if judge is None:
        raise UserError(f"compbench: these prompts need a {role}, and none was given. Name one (--judge {role}=NAME).")
    return judge


def verdict_on(ask: PromptQuestions, seen: Evidence) -> CompBenchVerdict:
    """The score by the category's rules, from what the judges said about a picture."""
    raw: JsonObject = {}
    if ask.questions:
        raw["p_yes"] = dict(zip(ask.questions, seen.p_yes, strict=True))
    if seen.detections is not None:
        raw |= {"relation": ask.word, "things": ask.things, "counts": ask.counts}
        raw["detections"] = [_raw(detection, seen.depth) for detection in seen.detections]
    if ask.text:
        raw |= {"text": ask.text, "cosine": seen.cosine}
    if ask.category == "complex":
        return _complex(ask, seen, raw)
    score, reason = _simple(ask, seen)
    return CompBenchVerdict(score, reason, raw=raw)


def _simple(ask: PromptQuestions, seen: Evidence) -> tuple[float, str]:
    """(score, why there is none)."""
    if ask.category in ATTRIBUTES:
        score = attribute_score(seen.p_yes)
        return score, "the questioner gave no verdict" if math.isnan(score) else ""
    if ask.category == "non_spatial":
        return seen.cosine, "the scorer gave no verdict" if math.isnan(seen.cosine) else ""
    if not ask.labels():
        return math.nan, "the prompt's words name nothing to look for"
    if seen.detections is None:
        return math.nan, "the detector gave no verdict"
    if ask.category == "numeracy":
        return numeracy_score(ask.counts, seen.detections), ""
    if ask.category == "spatial":
        return score_2d(ask.word, ask.things, seen.detections), ""
    if seen.depth is None:
        return math.nan, "the depth judge gave no verdict"
    return score_3d(ask.word, ask.things, seen.detections, seen.depth), ""


def _complex(ask: PromptQuestions, seen: Evidence, raw: JsonObject) -> CompBenchVerdict:
    assert ask.kind is not None
    with_relation, with_action = needs(ask.kind)
    parts = {"attribute": attribute_score(seen.p_yes)}
    if with_relation:
        # Without exactly two things upstream finds nothing, which scores 0.
        blind = ask.things is not None and seen.detections is None
        parts["spatial"] = math.nan if blind else score_2d(ask.word, ask.things, seen.detections or ())
    if with_action:
        parts["action"] = seen.cosine
    score = three_in_one(ask.kind, parts["attribute"], parts.get("spatial", math.nan), parts.get("action", math.nan))
    missing = [name for name, part in parts.items() if math.isnan(part)]
    return CompBenchVerdict(score, f"no verdict on {', '.join(missing)}" if missing else "", parts, raw)


def _raw(detection: Detection, depth: np.ndarray | None) -> JsonObject:
    found = {"label": detection.label, "box": list(detection.box), "score": detection.score}
    return found if depth is None else found | {"depth": mean_depth(depth, detection.box)}
