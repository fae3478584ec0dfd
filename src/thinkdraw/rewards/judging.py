"""What rewards share: the pictures of rollouts, and judges asked about many rows at once and held to their protocol.

A reward that has nothing to say about some prompts, because they lack what it looks at, says in its `Verdicts` that it
does not apply to them; its value is NaN there, which is no failure. Every other NaN is: a judge gave no verdict.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.judges.user_judges import with_checked_answers
from thinkdraw.rewards.judges_of import AnyJudge
from thinkdraw.runtime.chat.thoughts import without_thoughts
from thinkdraw.types import Detection, Detector, Questioner, Request, Rollouts, Writer

PAIRS_AT_ONCE = 512  # pictures repeated in memory at a time, one for each question
_Judge = TypeVar("_Judge")


def held_to(protocol: type[_Judge], judge: object) -> _Judge:
    """The judge; the answers of a user's own are checked. Raises TypeError where it lacks the protocol's method."""
    if not isinstance(judge, protocol):
        raise TypeError(f"{type(judge).__name__} is no {protocol.__name__}, which this reward asks.")
    return with_checked_answers(AnyJudge(judge).name, judge)


def pictures_of(rollouts: Rollouts) -> Tensor:
    """(B, H, W, 3) uint8. Raises ValueError where they were not decoded."""
    if rollouts.pictures is None:
        raise ValueError("rollouts without pictures: sample with decode=True, or decode before the reward.")
    return rollouts.pictures


def thoughts_of(rollouts: Rollouts) -> tuple[str, ...]:
    """A text for each row, empty where the policy did not think."""
    return rollouts.thoughts or ("",) * len(rollouts)


def fill_template(template: str, text: str, place: str = "{prompt}") -> str:
    """The template with the text in its place; other braces stay as they are."""
    return template.replace(place, text)


def check_template(name: str, template: str, place: str = "{prompt}") -> str:
    """The template. Raises UserError where the text has no place in it. name: of reward and setting."""
    if place not in template:
        raise UserError(f"{name}={template[:60]!r} has no {place}, so the judge cannot know what to look for. Add it.")
    return template


def p_yes(questioner: Questioner, pictures: Tensor, questions: Sequence[Sequence[str]]) -> list[Tensor]:
    """P(yes) of each row's questions, float32 on the CPU; a row without questions is not shown to the judge.

    Raises ValueError for answers that are not one number in 0..1, or NaN, for each question.
    """
    counts = [len(texts) for texts in questions]
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    every = [text for texts in questions for text in texts]
    answers = [torch.zeros(0)]
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        chosen = torch.tensor(rows[start : start + PAIRS_AT_ONCE], device=pictures.device)
        texts = every[start : start + PAIRS_AT_ONCE]
        p = questioner.answer(pictures[chosen], texts).float().cpu()
        if p.shape != (len(texts),) or bool(((p < -1e-5) | (p > 1 + 1e-5)).any()):
            raise ValueError(
                f"{AnyJudge(questioner).name} answered {len(texts)} questions with {tuple(p.shape)} numbers, "
                f"{p.flatten()[:3].tolist()} first: P(yes) is one number in 0..1 for each, or NaN."
            )
        answers.append(p.clamp(0, 1))
    return list(torch.cat(answers).split(counts))


def requests_about(rollouts: Rollouts, instruction: str) -> list[Request]:
    """The instruction about each row's picture, with the row's prompt in its place."""
    rows = zip(rollouts.prompts, pictures_of(rollouts).cpu().numpy(), strict=True)
    return [Request(fill_template(instruction, prompt.text), (picture,)) for prompt, picture in rows]


def written(writer: Writer, requests: Sequence[Request], parse: Callable[[str], float]) -> Tensor:
    """What `parse` reads in the writer's replies, (len(requests),) float32; NaN without a reply."""
    replies = writer.write(requests)
    if len(replies) != len(requests):
        raise ValueError(
            f"{AnyJudge(writer).name} wrote {len(replies)} replies to {len(requests)} requests: one for each."
        )
    return torch.tensor([math.nan if reply is None else parse(reply) for reply in replies], dtype=torch.float32)


def last_line_after(mark: str, reply: str) -> str | None:
    """What a judge wrote after the last `mark:`, on the first line that is not empty; None where it did not write it.

    A mark in another case or with another colon counts where there is none as asked for. Markup is taken off: asterisks,
    quotes, tags, a closing full stop. Thoughts are not looked at.
    """
    said = without_thoughts(reply)
    marks = [*re.finditer(rf"{re.escape(mark)}:", said)] or [
        *re.finditer(rf"\b{re.escape(mark)}[\s*_]*[:：]", said, re.IGNORECASE)
    ]
    if not marks:
        return None
    line = said[marks[-1].end() :].strip(" \t\n*_").partition("\n")[0]
    return re.sub(r"</?[A-Za-z_]\w*>|<\|\w+\|>", " ", line).lstrip(" \t*_\"'`“").rstrip(" \t*_.\"'`”")


def detected(detector: Detector, rollouts: Rollouts, labels: Sequence[Sequence[str]]) -> list[list[Detection] | None]:
    """What the detector finds of each row's labels; None = no verdict. A row without labels is not shown to it."""
    pictures = pictures_of(rollouts)
    rows = [i for i, names in enumerate(labels) if names]
    of_rows: list[list[Detection] | None] = [[] for _ in labels]
    if rows:
        shown = pictures[torch.tensor(rows, device=pictures.device)]
        for row, detections in zip(rows, found_in(detector, shown, [labels[i] for i in rows])):
            of_rows[row] = detections
    return of_rows


def found_in(
    detector: Detector, pictures: Tensor, labels: Sequence[Sequence[str]] | None
) -> Sequence[list[Detection] | None]:
    """What the detector finds in each picture. Raises ValueError where it answers for another number of them."""
    detections = detector.detect(pictures, labels)
    if len(detections) != len(pictures):
        raise ValueError(
            f"{AnyJudge(detector).name} gave detections of {len(detections)} pictures, and was shown {len(pictures)}."
        )
    return detections
