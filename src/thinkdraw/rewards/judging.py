"""What rewards share: pictures of rollouts, and checked calls to judges.

Some prompts lack what a reward looks at. Its `Verdicts` then say that it does not apply; the value is NaN there,
which is no failure. Every other NaN is a failure: a judge gave no verdict.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.judges.user_judges import with_checked_answers
from thinkdraw.rewards.base import BaseReward
from thinkdraw.rewards.judges_of import AnyJudge
from thinkdraw.runtime.chat.thoughts import strip_thoughts
from thinkdraw.types import (
    Detection,
    Detector,
    Prompt,
    Questioner,
    Request,
    Reward,
    Rollouts,
    Sampling,
    Writer,
)

PAIRS_AT_ONCE = 512  # pairs of picture and question held in memory at once: a picture is repeated for each question
_Judge = TypeVar("_Judge")


def check_judge(protocol: type[_Judge], judge: object) -> _Judge:
    """Check that the judge follows the protocol; guard a user's own judge.

    Raises TypeError where it lacks the protocol's method.
    """
    if not isinstance(judge, protocol):
        raise TypeError(f"{type(judge).__name__} is no {protocol.__name__}, which this reward needs. Give one.")
    return with_checked_answers(AnyJudge(judge).name, judge)


def pictures_of(rollouts: Rollouts) -> Tensor:
    """Return the decoded pictures, (B, H, W, 3) uint8.

    Raises ValueError if the rollouts were not decoded.
    """
    if rollouts.pictures is None:
        raise ValueError("these rollouts have no pictures. Sample with decode=True, or decode them before the reward.")
    return rollouts.pictures


def finished_rollouts(
    prompts: Sequence[Prompt], pictures: Tensor, thoughts: Sequence[str] = (), is_cut: Sequence[bool] = (), *,
    group_size: int = 1,
) -> Rollouts:  # fmt: skip
    """Wrap finished pictures (B, H, W, 3) uint8 as rollouts that a reward judges.

    Their tokens are stand-ins: two of a text, if there are thoughts, and one of a picture.
    thoughts: B texts that were written first, or () for pictures without. is_cut: B flags of thoughts that were cut.
    """
    count, thinks = len(prompts), bool(thoughts)
    segment = torch.tensor([[0, 0, 1] if thinks else [0]] * count, dtype=torch.int8)
    mask = torch.ones(segment.shape, dtype=torch.bool)
    if thinks and is_cut:
        mask[:, 1] = ~torch.tensor(list(is_cut))  # a token that was forced marks a text that was cut
    return Rollouts(
        prompts=tuple(prompts), prompt_ids=torch.zeros(count, 0).long(), prompt_mask=torch.zeros(count, 0).bool(),
        tokens=torch.zeros(segment.shape).long(), is_image=segment == int(thinks), segment=segment, mask=mask,
        log_probs=torch.zeros(segment.shape), seeds=torch.zeros(count).long(), group_size=group_size,
        sampling=Sampling.model_validate({"thought": "inline" if thinks else "off"}), pictures=pictures,
        thoughts=tuple(thoughts),
    )  # fmt: skip


def refuse_unfit_prompts(reward: Reward, prompts: Sequence[Prompt]) -> None:
    """Raise UserError for prompts that lack what the reward judges pictures by.

    A user's own reward is not asked: it says so by NaN when it sees the picture.
    """
    if not isinstance(reward, BaseReward):
        return
    unfit = [(prompt, why) for prompt in prompts if (why := reward.lacks(prompt))]
    if unfit:
        prompt, why = unfit[0]
        raise UserError(
            f"reward {reward.name} cannot judge {len(unfit)} of {len(prompts)} prompts; the first, {prompt.text[:60]!r}, has no "
            f"{why}. Give prompts that have it (a .txt file has texts alone), or a reward that reads the text, such as score or orm."
        )


def thoughts_of(rollouts: Rollouts) -> tuple[str, ...]:
    """Return a text for each rollout, empty where the policy did not think."""
    return rollouts.thoughts or ("",) * len(rollouts)


def fill_template(template: str, text: str, field: str = "{prompt}") -> str:
    """Put the text where the template has the field; leave other braces alone."""
    return template.replace(field, text)  # not str.format: a template may show JSON, whose braces stay


def check_template(name: str, template: str, field: str = "{prompt}") -> str:
    """Return the template after checking that it has the field.

    name: of reward and setting, for the UserError.
    """
    if field not in template:
        raise UserError(f"{name}={template[:60]!r} has no {field}, so the judge cannot know what to look for. Add it.")
    return template


def p_yes(questioner: Questioner, pictures: Tensor, questions: Sequence[Sequence[str]]) -> list[Tensor]:
    """Ask each picture its questions; give P(yes) per picture, float32 on the CPU.

    questions: a list for each picture. A picture without questions is not shown to the judge.
    Raises ValueError unless the judge answers each question with one number in 0..1, or NaN.
    """
    counts = [len(texts) for texts in questions]
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    all_questions = [text for texts in questions for text in texts]
    answers = [torch.zeros(0)]
    for start in range(0, len(rows), PAIRS_AT_ONCE):
        chosen = torch.tensor(rows[start : start + PAIRS_AT_ONCE], device=pictures.device)
        texts = all_questions[start : start + PAIRS_AT_ONCE]
        p = questioner.answer(pictures[chosen], texts).float().cpu()
        if p.shape != (len(texts),) or bool(((p < -1e-5) | (p > 1 + 1e-5)).any()):
            raise ValueError(
                f"{AnyJudge(questioner).name} answered {len(texts)} questions with numbers of shape {tuple(p.shape)}, "
                f"the first ones {p.flatten()[:3].tolist()}. It must give P(yes) for each: one number in 0..1, or NaN."
            )
        answers.append(p.clamp(0, 1))
    return list(torch.cat(answers).split(counts))


def picture_requests(rollouts: Rollouts, instruction: str) -> list[Request]:
    """Write a request about each picture: the instruction with its prompt filled in."""
    rows = zip(rollouts.prompts, pictures_of(rollouts).cpu().numpy(), strict=True)
    return [Request(fill_template(instruction, prompt.text), (picture,)) for prompt, picture in rows]


def scores_from_replies(writer: Writer, requests: Sequence[Request], parse: Callable[[str], float]) -> Tensor:
    """Send the requests to the writer and parse its replies, (len(requests),) float32.

    NaN where there is no reply.
    """
    replies = writer.write(requests)
    if len(replies) != len(requests):
        raise ValueError(
            f"{AnyJudge(writer).name} wrote {len(replies)} replies to {len(requests)} requests. It must write one for each."
        )
    return torch.tensor([math.nan if reply is None else parse(reply) for reply in replies], dtype=torch.float32)


def last_line_after(mark: str, reply: str) -> str | None:
    """Return what a judge wrote after the last `mark:`, or None without the mark.

    The text is the first line after the mark that is not empty, without markup: asterisks, quotes, tags, a closing
    full stop. Only if the exact mark is absent, one in another case or with another colon counts. Thoughts are not
    searched.
    """
    text = strip_thoughts(reply)
    marks = [*re.finditer(rf"{re.escape(mark)}:", text)] or [
        *re.finditer(rf"\b{re.escape(mark)}[\s*_]*[:：]", text, re.IGNORECASE)
    ]
    if not marks:
        return None
    line = text[marks[-1].end() :].strip(" \t\n*_").partition("\n")[0]
    return re.sub(r"</?[A-Za-z_]\w*>|<\|\w+\|>", " ", line).lstrip(" \t*_\"'`“").rstrip(" \t*_.\"'`”")


def detect_labels(
    detector: Detector, rollouts: Rollouts, labels: Sequence[Sequence[str]]
) -> list[list[Detection] | None]:
    """Look for each picture's labels; None = no verdict.

    A picture without labels is not shown to the detector and has no detections.
    """
    pictures = pictures_of(rollouts)
    rows = [i for i, names in enumerate(labels) if names]
    detections_of_rows: list[list[Detection] | None] = [[] for _ in labels]
    if rows:
        shown = pictures[torch.tensor(rows, device=pictures.device)]
        for row, detections in zip(rows, run_detector(detector, shown, [labels[i] for i in rows])):
            detections_of_rows[row] = detections
    return detections_of_rows


def run_detector(
    detector: Detector, pictures: Tensor, labels: Sequence[Sequence[str]] | None
) -> Sequence[list[Detection] | None]:
    """Run the detector on the pictures and check that each has a result.

    Raises ValueError for another number of results than pictures.
    """
    detections = detector.detect(pictures, labels)
    if len(detections) != len(pictures):
        raise ValueError(
            f"{AnyJudge(detector).name} gave detections of {len(detections)} pictures, but it was shown {len(pictures)}."
        )
    return detections
