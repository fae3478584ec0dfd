"""T2I-CompBench++ on pictures: ask each category's judges, score their answers.

The benchmark and the metric reward both call `CompBenchJudge`, so they never disagree. The rules, which need no
model, are in words.py, numeracy.py and complex.py beside this file, and in `thinkdraw.rewards.spatial`.
Huang et al. 2023 (arXiv 2307.06350) and 2025 (TPAMI), github.com/Karine-Huang/T2I-CompBench.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from torch import Tensor

from thinkdraw.benchmarks.compbench.asker import ATTRIBUTES, Asker, PromptQuestions
from thinkdraw.benchmarks.compbench.complex import attribute_score, needed_scores, three_in_one
from thinkdraw.benchmarks.compbench.numeracy import numeracy_score
from thinkdraw.benchmarks.compbench.scales import DepthJudge, depth_map, to_unidet
from thinkdraw.errors import UserError
from thinkdraw.rewards.judging import p_yes, run_detector
from thinkdraw.rewards.spatial import mean_depth, score_2d, score_3d
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Detection, Detector, Prompt, Questioner, Scorer

T = TypeVar("T")


@dataclass(frozen=True)
class CompBenchVerdict:
    """The score of a picture, with the judges' raw answers.

    score: 0..1, a cosine for non_spatial; NaN = no verdict, and `reason` names the judge. raw: what the judges said,
    JSON. parts, of complex prompts: attribute, spatial and action, as far as they are given.
    """

    score: float
    reason: str = ""
    parts: dict[str, float] = field(default_factory=dict)
    raw: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What the judges said about one picture.

    p_yes: one per question. detections, depth: None = not asked, or no verdict. Boxes and depth map (H', W') are in
    the pixels of `to_unidet`. cosine: NaN = not asked, or no verdict.
    """

    p_yes: Sequence[float] = ()
    detections: Sequence[Detection] | None = None
    depth: np.ndarray | None = None
    cosine: float = math.nan


class CompBenchJudge:
    """Scores pictures in the category that each prompt's `tag` names.

    questioner: P(yes) about noun chunks (color, shape, texture, complex). detector: relations, numeracy, complex.
    depth: 3D relations. scorer: CLIP's cosine (non_spatial, complex). A judge may be left out where no prompt needs
    it.
    """

    def __init__(
        self, asker: Asker, questioner: Questioner | None = None, detector: Detector | None = None,
        depth: DepthJudge | None = None, scorer: Scorer | None = None,
    ):  # fmt: skip
        self.asker = asker
        self.questioner, self.detector, self.depth, self.scorer = questioner, detector, depth, scorer

    def __call__(self, pictures: Tensor, prompts: Sequence[Prompt]) -> list[CompBenchVerdict]:
        """Judge pictures (B, H, W, 3) uint8, one per prompt.

        Raises UserError where a judge or a word list is needed and absent.
        """
        queries = [self.asker(prompt) for prompt in prompts]
        answers = [answer(pictures, queries) for answer in (self._p_yes, self._detections, self._depths, self._cosines)]
        return [verdict_from(query, Evidence(*evidence)) for query, *evidence in zip(queries, *answers)]

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Raise UserError where judging these prompts' pictures would.

        That is where a judge or a list of words is needed and absent.
        """
        for query in map(self.asker, prompts):
            is_role_needed = {
                "questioner": bool(query.questions), "detector": bool(query.labels()), "depth": query.category == "3d_spatial",
                "scorer": bool(query.text),
            }  # fmt: skip
            for role in (role for role, is_needed in is_role_needed.items() if is_needed):
                _require(role, getattr(self, role))

    def _p_yes(self, pictures: Tensor, queries: Sequence[PromptQuestions]) -> list[list[float]]:
        questions = [query.questions for query in queries]
        if not any(questions):
            return [[] for _ in queries]
        return [answers.tolist() for answers in p_yes(_require("questioner", self.questioner), pictures, questions)]

    def _detections(self, pictures: Tensor, queries: Sequence[PromptQuestions]) -> list[list[Detection] | None]:
        height, width = pictures.shape[1:3]

        def look(rows: list[int]) -> list[list[Detection] | None]:
            labels = [queries[row].labels() for row in rows]
            of_pictures = run_detector(_require("detector", self.detector), pictures[rows], labels)
            return [None if detections is None else to_unidet(detections, width, height) for detections in of_pictures]

        return _where([bool(query.labels()) for query in queries], look, None)

    def _depths(self, pictures: Tensor, queries: Sequence[PromptQuestions]) -> list[np.ndarray | None]:
        def look(rows: list[int]) -> list[np.ndarray | None]:
            return [depth_map(depth) for depth in _require("depth", self.depth).depth(pictures[rows]).cpu().numpy()]

        return _where([query.category == "3d_spatial" for query in queries], look, None)

    def _cosines(self, pictures: Tensor, queries: Sequence[PromptQuestions]) -> list[float]:
        def look(rows: list[int]) -> list[float]:
            return _require("scorer", self.scorer).score(pictures[rows], [queries[row].text for row in rows]).tolist()

        return _where([bool(query.text) for query in queries], look, math.nan)


def _where(is_asked: Sequence[bool], look: Callable[[list[int]], Sequence[T]], otherwise: T) -> list[T]:
    """Ask about some rows only; the others get `otherwise`."""
    rows = [row for row, is_row_asked in enumerate(is_asked) if is_row_asked]
    answers = dict(zip(rows, look(rows), strict=True)) if rows else {}
    return [answers.get(row, otherwise) for row in range(len(is_asked))]


def _require(role: str, judge: T | None) -> T:
    if judge is None:
        raise UserError(f"compbench: these prompts need a {role}, and there is none. Name one: judges.{role}=NAME.")
    return judge


def verdict_from(query: PromptQuestions, evidence: Evidence) -> CompBenchVerdict:
    """Score a picture by its category's rules from what the judges said."""
    raw: JsonObject = {}
    if query.questions:
        raw["p_yes"] = dict(zip(query.questions, evidence.p_yes, strict=True))
    if evidence.detections is not None:
        raw |= {"relation": query.word, "things": query.things, "counts": query.counts}
        raw["detections"] = [_raw(detection, evidence.depth) for detection in evidence.detections]
    if query.text:
        raw |= {"text": query.text, "cosine": evidence.cosine}
    if query.category == "complex":
        return _complex(query, evidence, raw)
    score, reason = _simple(query, evidence)
    return CompBenchVerdict(score, reason, raw=raw)


def _simple(query: PromptQuestions, evidence: Evidence) -> tuple[float, str]:
    """Return (score, why there is none)."""
    if query.category in ATTRIBUTES:
        score = attribute_score(evidence.p_yes)
        return score, "the questioner gave no verdict" if math.isnan(score) else ""
    if query.category == "non_spatial":
        return evidence.cosine, "the scorer gave no verdict" if math.isnan(evidence.cosine) else ""
    if not query.labels():
        return math.nan, "the prompt's words name nothing to look for"
    if evidence.detections is None:
        return math.nan, "the detector gave no verdict"
    if query.category == "numeracy":
        return numeracy_score(query.counts, evidence.detections), ""
    if query.category == "spatial":
        return score_2d(query.word, query.things, evidence.detections), ""
    if evidence.depth is None:
        return math.nan, "the depth judge gave no verdict"
    return score_3d(query.word, query.things, evidence.detections, evidence.depth), ""


def _complex(query: PromptQuestions, evidence: Evidence, raw: JsonObject) -> CompBenchVerdict:
    assert query.kind is not None
    with_relation, with_action = needed_scores(query.kind)
    parts = {"attribute": attribute_score(evidence.p_yes)}
    if with_relation:
        # Without exactly two things in the prompt, upstream detects nothing, which scores 0.
        has_no_verdict = query.things is not None and evidence.detections is None
        parts["spatial"] = math.nan if has_no_verdict else score_2d(query.word, query.things, evidence.detections or ())
    if with_action:
        parts["action"] = evidence.cosine
    score = three_in_one(query.kind, parts["attribute"], parts.get("spatial", math.nan), parts.get("action", math.nan))
    missing = [name for name, part in parts.items() if math.isnan(part)]
    return CompBenchVerdict(score, f"no verdict on {', '.join(missing)}" if missing else "", parts, raw)


def _raw(detection: Detection, depth: np.ndarray | None) -> JsonObject:
    raw = {"label": detection.label, "box": list(detection.box), "score": detection.score}
    return raw if depth is None else raw | {"depth": mean_depth(depth, detection.box)}
