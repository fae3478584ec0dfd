"""Does training cost the model its eyes? Questions about pictures, from a file.

A line is `{"image": "cat.png", "question": "Is it a cat?", "answer": "yes"}`. A multiple-choice question has
`"choices": ["a cat", "a dog"]` and the right one as its text, its letter or its number from 0. An `id` is optional.
Pictures are searched for beside the file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from thinkdraw.benchmarks.base import Row, null_for_nan, number_or_nan
from thinkdraw.benchmarks.picture_files import memory_batches, pixels_of
from thinkdraw.benchmarks.statistics import PromptVerdicts, Score, paired_difference, per_task, task_mean_score
from thinkdraw.data.prompt_files import id_of, text_of
from thinkdraw.data.tables import resolve_inside
from thinkdraw.data.text_files import json_rows
from thinkdraw.errors import UserError
from thinkdraw.picture_reader import DEFAULT_CONFIG, PictureReaderConfig, UnreadableError, read_picture
from thinkdraw.runtime.json_types import JsonMapping
from thinkdraw.types import Questioner

YES_NO, CHOICE = "yes/no", "multiple choice"


@dataclass(frozen=True)
class VqaItem:
    """A question about a picture, with its right answer.

    choices: empty for yes/no. answer: index of the right choice; for yes/no, 0 is yes and 1 is no.
    """

    id: str
    image: Path
    question: str
    choices: tuple[str, ...]
    answer: int

    @property
    def kind(self) -> str:
        return CHOICE if self.choices else YES_NO


@dataclass(frozen=True)
class VqaReport:
    """Shares of right answers; `accuracy` weighs all questions alike.

    problems: pictures that cannot be read, with reasons.
    """

    accuracy: Score
    per_kind: Mapping[str, Score]
    rows: Sequence[Row]
    problems: Sequence[str]


def read_vqa(path: Path) -> list[VqaItem]:
    """Read a file's questions in order.

    Raises UserError naming the line of a question without a usable answer.
    """
    items = []
    for line, row in json_rows(path):
        where = f"{path} line {line}"
        question, image = text_of(row, "question", where), text_of(row, "image", where)
        choices = tuple(str(choice) for choice in row.get("choices") or ())
        items.append(
            VqaItem(
                id_of(row, "id", where) or str(line),
                resolve_inside(path.parent, image, where),
                question,
                choices,
                _answer(row, choices, where),
            )
        )
    if not items:
        raise UserError(f"{path} holds no question. Write rows with image, question and answer.")
    if len({item.id for item in items}) < len(items):
        raise UserError(f"{path}: two questions have the same id. Give each its own.")
    return items


def evaluate_vqa(
    questioner: Questioner, items: Sequence[VqaItem], *, seed: int = 0, at_once: int = 32, reading: PictureReaderConfig = DEFAULT_CONFIG
) -> VqaReport:  # fmt: skip
    """Ask each question about its picture.

    Yes is P(yes) > 0.5. Of choices, the answer is the one for which P(yes) of "QUESTION Is it CHOICE?" is highest.
    An unreadable picture or a NaN gives no verdict, which is counted.
    """
    rows: list[Row] = []
    problems: list[str] = []
    sizes = ((item, pixels_of(item.image, reading) * max(1, len(item.choices))) for item in items)
    for batch in memory_batches(sizes, at_once):
        for item, p_yes in zip(batch, _ask(questioner, batch, problems, reading)):
            choice = None if p_yes is None else int(p_yes.argmax()) if item.choices else int(p_yes[0] <= 0.5)
            right = math.nan if choice is None else float(choice == item.answer)
            rows.append({"id": item.id, "kind": item.kind, "given": choice, "verdict": null_for_nan(right)})
    verdicts = _verdicts(rows)
    return VqaReport(
        task_mean_score([PromptVerdicts("", row.verdicts, row.prompt) for row in verdicts], seed=seed),
        per_task(verdicts, seed=seed), rows, problems,
    )  # fmt: skip


def vqa_difference(rows_a: Sequence[Row], rows_b: Sequence[Row], *, seed: int = 0) -> Score:
    """Compute the accuracy of a minus that of b on the same questions, paired.

    Raises UserError if the questions differ.
    """
    sides = [[PromptVerdicts("", row.verdicts, row.prompt) for row in _verdicts(rows)] for rows in (rows_a, rows_b)]
    try:
        return paired_difference(*sides, seed=seed)
    except ValueError as error:
        raise UserError(f"the two sides answered different questions: {error}") from error


def _ask(
    questioner: Questioner, items: Sequence[VqaItem], problems: list[str], reading: PictureReaderConfig
) -> list[Tensor | None]:
    """Return P(yes) for each choice of each item; for yes/no, just for the question.

    None = no verdict, with a line in `problems`.
    """
    by_size: dict[tuple[int, ...], list[tuple[int, Tensor, str]]] = {}
    for i, item in enumerate(items):
        try:
            picture = torch.from_numpy(read_picture(item.image, reading))
        except UnreadableError as error:
            problems.append(f"question {item.id}: {error}")
            continue
        texts = [f"{item.question} Is it {choice}?" for choice in item.choices] or [item.question]
        by_size.setdefault(tuple(picture.shape), []).extend((i, picture, text) for text in texts)
    answers_of_item: dict[int, list[float]] = {}
    for pairs in by_size.values():
        p_yes = questioner.answer(torch.stack([picture for _, picture, _ in pairs]), [text for _, _, text in pairs])
        for (i, _, _), p in zip(pairs, p_yes.tolist(), strict=True):
            answers_of_item.setdefault(i, []).append(p)
    for i in [i for i, values in answers_of_item.items() if any(map(math.isnan, values))]:
        problems.append(f"question {items[i].id}: no verdict")
        del answers_of_item[i]
    return [torch.tensor(answers_of_item[i]) if i in answers_of_item else None for i in range(len(items))]


def _answer(row: JsonMapping, choices: tuple[str, ...], where: str) -> int:
    """Parse the right answer into its index."""
    answer = row.get("answer")
    if not choices:
        if isinstance(answer, str) and answer.strip().lower() in ("yes", "no"):
            return ("yes", "no").index(answer.strip().lower())
        raise UserError(f"{where}: answer={answer!r} is neither yes nor no, and there are no choices. Correct it.")
    letters = [chr(ord("A") + i) for i in range(len(choices))]
    if isinstance(answer, int) and answer in range(len(choices)):
        return answer
    if isinstance(answer, str) and answer in choices:
        return choices.index(answer)
    if isinstance(answer, str) and answer.strip().upper() in letters:
        return letters.index(answer.strip().upper())
    raise UserError(
        f"{where}: answer={answer!r} is none of the {len(choices)} choices. Give its text, letter or number."
    )


def _verdicts(rows: Sequence[Row]) -> list[PromptVerdicts]:
    ordered = sorted(rows, key=lambda row: str(row["id"]))
    return [PromptVerdicts(row["kind"], [number_or_nan(row["verdict"])], row["id"]) for row in ordered]
