"""How well a policy answers yes/no questions about pictures.

The pictures are held-out lab pictures, the same ones blanked, and the policy's own drawings. Answers that do not get
worse when the picture is blanked were guessed from the question; half of them are right by chance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from thinkdraw.benchmarks.base import number_or_nan
from thinkdraw.benchmarks.statistics import (
    PromptVerdicts,
    Score,
    auroc,
    paired_difference,
    per_task,
    task_mean_score,
)
from thinkdraw.errors import UserError
from thinkdraw.lab.detector import detect_objects
from thinkdraw.lab.facts import QUESTION_TYPES, balanced_question
from thinkdraw.lab.prompts import SPECS, stream
from thinkdraw.lab.scenes import draw
from thinkdraw.rewards.lab_detector import facts_hold
from thinkdraw.runtime.json_types import JsonMapping
from thinkdraw.types import Prompt, Questioner


@dataclass(frozen=True)
class QuestionSet:
    """Q pictures with a question each.

    pictures: (Q, H, W, 3) uint8. answers: (Q,) bool, True = yes.
    """

    pictures: Tensor
    questions: tuple[str, ...]
    kinds: tuple[str, ...]
    answers: np.ndarray


@dataclass(frozen=True)
class Answers:
    """A policy's answers to a question set, and how good they are.

    accuracy: mean over question types, yes where P(yes) > 0.5. auroc: of P(yes), all questions together.
    verdicts: type → whether each answer is right, 0 or 1, NaN = no verdict, in the order of asking.
    """

    accuracy: Score
    per_type: dict[str, Score]
    auroc: float
    yes_frac: float
    verdicts: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class UnderstandingReport:
    """Answers with the pictures, and answers to the same questions without them.

    blanked: about an empty white picture. description: which questions, in words.
    """

    pictures: Answers
    blanked: Answers
    description: str = ""

    def summary(self) -> dict[str, object]:
        """Build the `understanding` entry of an evaluation's summary.json.

        It has the accuracy per type, overall, and blanked. `understanding_difference` needs `asked` and `verdicts`.
        """
        return {
            "accuracy": self.pictures.accuracy.value,
            "low": self.pictures.accuracy.low,
            "high": self.pictures.accuracy.high,
            "auroc": _or_none(self.pictures.auroc),
            "yes_frac": self.pictures.yes_frac,
            "questions": self.pictures.accuracy.pictures,
            "per_type": {
                kind: {"value": score.value, "low": score.low, "high": score.high}
                for kind, score in self.pictures.per_type.items()
            },
            "blanked": {"accuracy": self.blanked.accuracy.value, "auroc": _or_none(self.blanked.auroc)},
            "asked": self.description,
            "verdicts": {kind: [_or_none(v) for v in values] for kind, values in self.pictures.verdicts.items()},
        }


def check_per_type(per_type: int) -> None:
    """Refuse an odd number of questions per type before anything is drawn.

    Raises UserError.
    """
    if per_type < 2 or per_type % 2:
        raise UserError(
            f"questions_per_type={per_type}: each question is asked of two pictures, so give an even number, or 0 for none."
        )


def question_set(per_type: int = 64, seed: int = 0) -> QuestionSet:
    """Make `per_type` questions of each type about scenes of the test split, in pairs.

    A pair is one question about two pictures: one that it is true of, and the same with one thing changed so that it
    is false. Without looking half of them are right. Raises UserError if per_type is odd.
    """
    check_per_type(per_type)
    rng = np.random.default_rng([seed, per_type])
    streams = [stream(family, "test", seed) for family in SPECS]
    pictures, questions, kinds, answers = [], [], [], []
    index = 0
    for kind in QUESTION_TYPES:
        for _ in range(per_type // 2):
            pair = None
            while pair is None:
                scene = next(streams[index % len(streams)]).scene(rng)
                pair = balanced_question(scene, kind, rng)
                index += 1
            text, changed = pair
            pictures += [draw(scene), draw(changed)]  # pyright: ignore[reportPossiblyUnboundVariable]
            questions += [text, text]
            kinds += [kind, kind]
            answers += [True, False]
    return QuestionSet(torch.from_numpy(np.stack(pictures)), tuple(questions), tuple(kinds), np.array(answers))


def evaluate_understanding(questioner: Questioner, per_type: int = 64, seed: int = 0) -> UnderstandingReport:
    """Ask `question_set(per_type, seed)` with the pictures and with blank ones.

    questioner: for instance a policy.
    """
    questions = question_set(per_type, seed)
    blank = torch.full_like(questions.pictures, 255)  # white
    seeing, blind = (_answers(questioner, pictures, questions, seed) for pictures in (questions.pictures, blank))
    return UnderstandingReport(seeing, blind, f"{per_type} questions of each type, seed {seed}")


def understanding_difference(a: JsonMapping, b: JsonMapping, *, seed: int = 0) -> Score | None:
    """Compute the accuracy of a minus that of b, paired by question.

    None where they did not get the same questions. a, b: `summary()`s.
    """
    if not a.get("asked") or a["asked"] != b.get("asked"):
        return None
    sides = [
        [
            PromptVerdicts(kind, [number_or_nan(value)], f"{kind} {i}")
            for kind, values in side["verdicts"].items()
            for i, value in enumerate(values)
        ]
        for side in (a, b)
    ]
    return paired_difference(*sides, seed=seed)


def _answers(questioner: Questioner, pictures: Tensor, questions: QuestionSet, seed: int) -> Answers:
    p_yes = questioner.answer(pictures, questions.questions).float().cpu().numpy()
    right = np.where(np.isnan(p_yes), math.nan, (p_yes > 0.5) == questions.answers)
    rows = [PromptVerdicts(kind, [float(verdict)]) for kind, verdict in zip(questions.kinds, right)]
    return Answers(
        accuracy=task_mean_score(rows, seed=seed),
        per_type=per_task(rows, seed=seed),
        auroc=auroc(questions.answers, p_yes),
        yes_frac=float((p_yes > 0.5).mean()),
        verdicts={
            kind: [row.verdicts[0] for row in rows if row.task == kind] for kind in dict.fromkeys(questions.kinds)
        },
    )


@dataclass(frozen=True)
class Agreement:
    """Agreement of P(yes) with the lab's detector on drawn pictures.

    auroc: with its 95 % interval low, high; NaN if all facts hold or none. true_frac: share of the facts that hold.
    """

    auroc: float
    low: float
    high: float
    true_frac: float
    questions: int
    num_no_verdict: int


def agreement_on_drawn(
    questioner: Questioner, pictures: Tensor, prompts: Sequence[Prompt], *, seed: int = 0, num_resamples: int = 1000
) -> Agreement:
    """Compute the AUROC of P(yes) against the detector's truth on drawn pictures.

    The questions are those of the prompts that the pictures were drawn for. pictures: (B, H, W, 3) uint8, one per
    prompt. Interval: percentile bootstrap over pictures.
    """
    if len(pictures) != len(prompts) or not len(prompts):
        raise ValueError(f"{len(pictures)} pictures and {len(prompts)} prompts: give one prompt per picture.")
    truth = [facts_hold(prompt, detect_objects(picture)) for prompt, picture in zip(prompts, pictures.cpu().numpy())]
    row = np.repeat(np.arange(len(truth)), [len(facts) for facts in truth])
    questions = [question.text for prompt in prompts for question in prompt.questions]
    p_yes = questioner.answer(pictures[torch.from_numpy(row)], questions).float().cpu().numpy()
    labels = np.concatenate([np.array(facts, dtype=bool) for facts in truth])
    rng = np.random.default_rng(seed)
    of_picture = [np.flatnonzero(row == i) for i in range(len(truth))]
    draws = []
    for _ in range(num_resamples):
        chosen = np.concatenate([of_picture[i] for i in rng.integers(len(truth), size=len(truth))])
        draws.append(auroc(labels[chosen], p_yes[chosen]))
    known = [value for value in draws if not math.isnan(value)] or [math.nan]
    low, high = np.percentile(known, (2.5, 97.5))
    missing = int(np.isnan(p_yes).sum())
    return Agreement(
        auroc(labels, p_yes), float(low), float(high), float(labels.mean()), len(labels) - missing, missing
    )


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
