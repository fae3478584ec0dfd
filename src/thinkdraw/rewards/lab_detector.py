"""Whether a lab picture shows what its prompt asks for, by the lab's exact detector: a verdict and, from it, a reward.

Prompts of GenEval's tasks are judged by GenEval's rules (arXiv 2310.11513), the others question by question as
DPG-Bench does it (arXiv 2403.05135): a question counts only if all that it depends on is true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.judges.lab import LabDetector
from thinkdraw.lab.detector import Found, look
from thinkdraw.lab.facts import VALUES, Seen, is_true
from thinkdraw.lab.prompts import GENEVAL_TASKS
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import pictures_of
from thinkdraw.rewards.rules import fact_share, judge_picture, keep_detections, relative_position
from thinkdraw.types import Detection, Prompt, Rollouts, Verdicts

THRESHOLD = 0.3  # of a detection's score, GenEval's
# "small" → "size", "ring" → "shape", …; a clause has its colour beside its class, not in it.
_KIND_OF = {word: kind for kind, words in VALUES.items() if kind != "color" for word in words}


@dataclass(frozen=True)
class LabVerdict:
    """What the detector says of one picture and its prompt.

    correct: all facts of the prompt hold. share: of the facts that hold, 0..1. reason: lines on those that do not.
    found: what the detector saw.
    """

    correct: bool
    share: float
    reason: str
    found: Found

    @property
    def detections(self) -> list[Detection]:
        return self.found.detections


def judge(picture: np.ndarray | Tensor, prompt: Prompt, found: Found | None = None) -> LabVerdict:
    """Judge one picture (H, W, 3) uint8 by its prompt. found: what the detector saw in it, if it has looked already.

    Raises UserError for a prompt that says nothing a lab picture can be checked for.
    """
    found = look(np.asarray(picture)) if found is None else found
    if prompt.include and (prompt.tag in GENEVAL_TASKS or not prompt.questions):
        return _by_clauses(prompt, found)
    if not prompt.questions:
        raise UserError(
            f"prompt {prompt.text[:60]!r} has neither clauses nor questions, so the lab detector cannot judge it."
        )
    return _by_questions(prompt, found)


def facts_hold(prompt: Prompt, found: Found) -> list[bool]:
    """Whether each question's fact holds, leaving aside what the question depends on.

    Raises UserError for a question without a fact.
    """
    seen = Seen.of_detections(found, THRESHOLD)
    return [_holds(_fact(prompt, question.fact), seen, found) for question in prompt.questions]


def _by_clauses(prompt: Prompt, found: Found) -> LabVerdict:
    """Judge by GenEval's rules on the prompt's clauses: classes with counts, colours and positions."""
    metadata = prompt.metadata()
    names = {clause["class"] for clause in (*prompt.include, *prompt.exclude)}
    wanted = {name: _attributes(name, prompt) for name in names}
    # A detection stands under every class that it fits: a small striped ring is a ring, too.
    detections = {name: [d for d in found.detections if _fits(d, wanted[name])] for name in names}
    kept = keep_detections(detections, tag=prompt.tag, threshold=THRESHOLD)
    verdict = judge_picture(metadata, kept, _colors)
    return LabVerdict(verdict.correct, fact_share(metadata, kept, _colors), verdict.reason, found)


def _by_questions(prompt: Prompt, found: Found) -> LabVerdict:
    """Judge by DPG-Bench's rule: a question is answered yes if its fact holds and all that it depends on is yes."""
    is_yes: dict[int, bool] = {}  # by question id; parents come before their children
    for question, holds in zip(prompt.questions, facts_hold(prompt, found)):
        is_yes[question.id] = holds and all(is_yes[parent] for parent in question.depends_on)
    failed = [question.text for question in prompt.questions if not is_yes[question.id]]
    reason = "\n".join(f"no: {text}" for text in failed)
    return LabVerdict(not failed, 1 - len(failed) / len(is_yes), reason, found)


def _attributes(name: str, prompt: Prompt) -> dict[str, str]:
    """'small striped ring' → {"size": "small", "texture": "striped", "shape": "ring"}."""
    words = name.split()
    unknown = [word for word in words if word not in _KIND_OF]
    if unknown or not words or _KIND_OF[words[-1]] != "shape":
        raise UserError(
            f"class {name!r} of prompt {prompt.text[:60]!r} is not a thing of the lab, all that its detector knows. "
            "Use prompts of the lab, or another reward."
        )
    return {_KIND_OF[word]: word for word in words}


def _fits(detection: Detection, wanted: dict[str, str]) -> bool:
    """Whether a detection has all the wanted attributes."""
    return all(value == {"shape": detection.label, **detection.attributes}[kind] for kind, value in wanted.items())


def _colors(name: str, found: Sequence[Detection]) -> list[str]:
    """The colours of detections of a class, which GenEval asks a classifier for and the lab's detector knows."""
    return [detection.attributes["color"] for detection in found]


def _fact(prompt: Prompt, fact: dict[str, Any] | None) -> dict[str, Any]:
    """The fact of a prompt's question. Raises UserError where it has none."""
    if fact is None:
        raise UserError(f"a question of prompt {prompt.text[:60]!r} has no fact, so the lab detector cannot judge it.")
    return fact


def _holds(fact: dict[str, Any], seen: Seen, found: Found) -> bool:
    """Whether a fact holds in a picture. seen, found: the same detections, as `lab.facts` and the detector have them."""
    if fact["kind"] != "relation":
        return is_true(fact, seen)
    # Relations by GenEval's rule on boxes, as for clauses, and not by `is_true`: one rule for all of the lab's prompts.
    sure = [d for d in found.detections if d.score > THRESHOLD]
    pairs = [(a, b) for a in sure if _fits(a, fact["thing"]) for b in sure if _fits(b, fact["other"]) and a is not b]
    return any(fact["relation"] in relative_position(a.box, b.box) for a, b in pairs)


class LabDetectorReward(BaseReward):
    """How far lab pictures show what their prompts ask for, 0..1, by the lab's exact detector.

    (1 − strict_weight) · share of the prompt's facts that hold + strict_weight · (1 if all of them hold, else 0). The parts
    are `facts`, that share, and `correct`, 0 or 1.
    """

    name = "lab-detector"
    asks = ("detector",)

    def __init__(self, strict_weight: float = 0.5):
        if not 0 <= strict_weight <= 1:
            raise UserError(f"lab-detector: strict_weight={strict_weight} must lie in 0..1.")
        self.strict_weight = strict_weight
        self.detector = LabDetector()

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        pictures = pictures_of(rollouts)
        rows = zip(pictures, rollouts.prompts, self.detector.look(pictures))
        verdicts = [judge(picture, prompt, found) for picture, prompt, found in rows]
        facts = torch.tensor([verdict.share for verdict in verdicts], dtype=torch.float32)
        correct = torch.tensor([float(verdict.correct) for verdict in verdicts], dtype=torch.float32)
        rewards = (1 - self.strict_weight) * facts + self.strict_weight * correct
        return Verdicts.of(rewards, parts={"facts": facts, "correct": correct})
