"""The lab's exact detector as a judge of lab pictures.

Prompts of GenEval's tasks are judged by GenEval's rules (arXiv 2310.11513). The others are judged question by
question as in DPG-Bench (arXiv 2403.05135): a question counts only if all questions that it depends on are true.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.judges.lab import LabDetector
from thinkdraw.lab.detector import DetectorOutput, detect_objects
from thinkdraw.lab.facts import VALUES, PictureContents, is_true
from thinkdraw.lab.prompts import GENEVAL_TASKS
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judging import pictures_of
from thinkdraw.rewards.rules import fact_share, judge_picture, keep_detections, relative_position
from thinkdraw.types import Detection, Prompt, Rollouts, Verdicts

THRESHOLD = 0.3  # lowest score of a detection that counts, as in GenEval
# "small" → "size", "ring" → "shape", …; a clause has its colour beside its class, not in it.
_KIND_OF = {word: kind for kind, words in VALUES.items() if kind != "color" for word in words}


@dataclass(frozen=True)
class LabVerdict:
    """What the detector says about one picture and its prompt.

    correct: whether all facts of the prompt hold. share: the share of facts that hold, 0..1.
    reason: a line for each fact that fails. contents: what the detector saw.
    """

    correct: bool
    share: float
    reason: str
    contents: DetectorOutput

    @property
    def detections(self) -> list[Detection]:
        return self.contents.detections


def judge(picture: np.ndarray | Tensor, prompt: Prompt, contents: DetectorOutput | None = None) -> LabVerdict:
    """Judge one picture (H, W, 3) uint8 by its prompt.

    contents: what the detector saw in it, if it has looked already.
    Raises UserError for a prompt with nothing to check in a lab picture.
    """
    contents = detect_objects(np.asarray(picture)) if contents is None else contents
    if prompt.include and (prompt.tag in GENEVAL_TASKS or not prompt.questions):
        return _by_clauses(prompt, contents)
    if not prompt.questions:
        raise UserError(
            f"prompt {prompt.text[:60]!r} has neither clauses nor questions, so the lab detector cannot judge it. "
            "A .txt file has texts alone. Take prompts with their facts (prompts.source=lab, or a file of `thinkdraw prompts "
            "make`), or a reward that reads the text, such as reward=lab-clip."
        )
    return _by_questions(prompt, contents)


def facts_hold(prompt: Prompt, contents: DetectorOutput) -> list[bool]:
    """Tell for each question whether its fact holds, whatever the question depends on.

    Raises UserError for a question without a fact.
    """
    things = PictureContents.of_detections(contents, THRESHOLD)
    return [_holds(_fact(prompt, question.fact), things, contents) for question in prompt.questions]


def _by_clauses(prompt: Prompt, contents: DetectorOutput) -> LabVerdict:
    """Judge the prompt's clauses by GenEval's rules: counts, colours and positions."""
    metadata = prompt.metadata()
    names = {clause["class"] for clause in (*prompt.include, *prompt.exclude)}
    attributes = {name: _attributes(name, prompt) for name in names}
    # A detection stands under every class that it fits: a small striped ring is a ring, too.
    detections = {name: [d for d in contents.detections if _fits(d, attributes[name])] for name in names}
    kept = keep_detections(detections, tag=prompt.tag, threshold=THRESHOLD)
    verdict = judge_picture(metadata, kept, _colors)
    return LabVerdict(verdict.correct, fact_share(metadata, kept, _colors), verdict.reason, contents)


def _by_questions(prompt: Prompt, contents: DetectorOutput) -> LabVerdict:
    """Judge the prompt's questions by DPG-Bench's rule.

    A question counts as yes if its fact holds and all that it depends on is yes.
    """
    is_yes: dict[int, bool] = {}  # by question id; parents come before their children
    for question, holds in zip(prompt.questions, facts_hold(prompt, contents)):
        is_yes[question.id] = holds and all(is_yes[parent] for parent in question.depends_on)
    failed = [question.text for question in prompt.questions if not is_yes[question.id]]
    reason = "\n".join(f"no: {text}" for text in failed)
    return LabVerdict(not failed, 1 - len(failed) / len(is_yes), reason, contents)


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


def _fits(detection: Detection, attributes: dict[str, str]) -> bool:
    """Tell whether a detection has all these attributes."""
    return all(value == {"shape": detection.label, **detection.attributes}[kind] for kind, value in attributes.items())


def _colors(name: str, detections: Sequence[Detection]) -> list[str]:
    """Return the colours of detections of a class.

    GenEval asks a classifier for them; the lab's detector knows them.
    """
    return [detection.attributes["color"] for detection in detections]


def _fact(prompt: Prompt, fact: dict[str, Any] | None) -> dict[str, Any]:
    """Return the fact of a prompt's question. Raises UserError if it has none."""
    if fact is None:
        raise UserError(
            f"a question of prompt {prompt.text[:60]!r} has no fact, so the lab detector cannot judge it. "
            "Use prompts of the lab, or another reward."
        )
    return fact


def _holds(fact: dict[str, Any], things: PictureContents, contents: DetectorOutput) -> bool:
    """Tell whether a fact holds in a picture.

    things, contents: the same detections, in the forms of `lab.facts` and of the detector.
    """
    if fact["kind"] != "relation":
        return is_true(fact, things)
    # Relations by GenEval's rule on boxes, as for clauses, and not by `is_true`: one rule for all of the lab's prompts.
    sure = [d for d in contents.detections if d.score > THRESHOLD]
    pairs = [(a, b) for a in sure if _fits(a, fact["thing"]) for b in sure if _fits(b, fact["other"]) and a is not b]
    return any(fact["relation"] in relative_position(a.box, b.box) for a, b in pairs)


class LabDetectorReward(BaseReward):
    """Share of the prompt's facts that a lab picture shows, by the exact detector.

    It needs lab pictures, and prompts with clauses or with questions that carry facts. 0..1, higher is better:
    (1 − strict_weight) · share of the facts that hold + strict_weight · (1 if all of them hold, else 0).
    The parts are `facts`, that share, and `correct`, 0 or 1.
    strict_weight: 0..1, the part of the reward that only a picture without any mistake gets.
    """

    name = "lab-detector"
    asks = ("detector",)

    def __init__(self, strict_weight: float = 0.5):
        if not 0 <= strict_weight <= 1:
            raise UserError(f"lab-detector: strict_weight={strict_weight} must lie in 0..1. Correct it.")
        self.strict_weight = strict_weight
        self.detector = LabDetector()

    def lacks(self, prompt: Prompt, /) -> str:
        try:
            judge(np.zeros((1, 1, 3), np.uint8), prompt, DetectorOutput("white", []))
        except UserError:
            return "clauses or questions about things of the lab"
        return ""

    def __call__(self, rollouts: Rollouts, /) -> Verdicts:
        pictures = pictures_of(rollouts)
        rows = zip(pictures, rollouts.prompts, self.detector.look(pictures))
        verdicts = [judge(picture, prompt, contents) for picture, prompt, contents in rows]
        facts = torch.tensor([verdict.share for verdict in verdicts], dtype=torch.float32)
        correct = torch.tensor([float(verdict.correct) for verdict in verdicts], dtype=torch.float32)
        rewards = (1 - self.strict_weight) * facts + self.strict_weight * correct
        return Verdicts.of(rewards, parts={"facts": facts, "correct": correct})
