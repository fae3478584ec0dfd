"""UniGenBench, English: 600 prompts with test points (arXiv 2510.18701).

A test point is true of a picture or not. A `Writer` judges by a rubric that the user brings: upstream's is not ours
to copy. `files.py` reads files and points.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from thinkdraw.benchmarks.base import (
    Layout,
    PictureSet,
    Report,
    Row,
    judge_name,
    number_or_nan,
    require_judge,
    row_about,
)
from thinkdraw.benchmarks.crossed import crossed_score
from thinkdraw.benchmarks.statistics import PromptVerdicts, per_task
from thinkdraw.benchmarks.unigenbench import files
from thinkdraw.errors import UserError
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Prompt, Request, Writer

DIMENSIONS = (
    "Style", "World Knowledge", "Attribute", "Action", "Relationship", "Compound", "Grammar", "Logical Reasoning",
    "Entity Layout", "Text Generation",
)  # fmt: skip
"""The ten primary dimensions in the order of the leaderboard."""

FIELDS = ("{prompt}", "{points}")


class UniGenBench:
    """UniGenBench: 600 prompts with test points, each checked by a judge that writes.

    It needs a `Writer` and a rubric. The score is the share of test points that the writer finds to be true.
    rubric: a text file with {prompt} and {points} in it, where the prompt and the numbered test points with their
    descriptions go; it must ask for `<score>[…]</score>`, a list of 0 and 1 as long as the test points.
    attempts: requests per picture until an answer has that form; upstream asks up to 10 times.
    """

    name = "unigenbench"
    folder = "unigenbench"
    prompt_file = "test_prompts_en.csv"
    num_prompts = 600
    official_sha256: Sequence[str] = (
        "f82e8ce854985ef963378eaaf8ce12f2e3a57dd6f53e1aea84a61fbeadfe4459",
        "5d2c3d642cc4923504b662ad15b425c2d161a137884701881e00c2691a697253",
    )
    roles: Mapping[str, str] = {"writer": "vlm"}
    pictures_per_prompt = 4

    def __init__(self, writer: Writer | None = None, rubric: str | None = None, attempts: int = 10):
        if attempts < 1:
            raise UserError(f"unigenbench: attempts={attempts} must be at least 1. Raise it.")
        self.writer, self.attempts = writer, attempts
        self.rubric = files.read_rubric(Path(rubric), FIELDS) if rubric else None
        if writer is not None and self.rubric is None:
            raise UserError(
                "unigenbench: the judge needs a rubric. Write it into a file and give settings.rubric=FILE."
            )

    @property
    def label(self) -> str:
        return f"{self.name}[{judge_name(self.writer)}]"

    def prompts(self, path: Path) -> list[Prompt]:
        return files.read_prompts(path)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        require_judge(self.name, "writer", self.writer)

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        keys = [(pictures, k) for pictures in sets for k in range(len(pictures.pictures))]
        requests = [Request(self._text(pictures.prompt), (pictures.pictures[k],)) for pictures, k in keys]
        answers: list[str | None] = [None] * len(keys)
        points: list[list[float] | None] = [None] * len(keys)
        remaining = list(range(len(keys)))
        for _ in range(self.attempts):
            assert self.writer is not None
            for i, answer in zip(remaining, self.writer.write([requests[i] for i in remaining]), strict=True):
                answers[i] = answer
                points[i] = files.read_points(answer or "", len(keys[i][0].prompt.questions))
            remaining = [i for i in remaining if points[i] is None]
            if not remaining:
                break
        return [
            self._row(*key, answer, points_found)
            for key, answer, points_found in zip(keys, answers, points, strict=True)
        ]

    def _text(self, prompt: Prompt) -> str:
        points = "\n".join(f"{q.id}. {q.category}: {q.text}" for q in prompt.questions)
        values = {"{prompt}": prompt.text, "{points}": points}
        # In one pass and not by str.format: a rubric may show JSON, and a prompt may hold braces.
        return re.sub("|".join(map(re.escape, FIELDS)), lambda field: values[field[0]], str(self.rubric))

    def _row(self, pictures: PictureSet, k: int, answer: str | None, points: list[float] | None) -> Row:
        raw: JsonObject = {"points": points, "answer": answer}
        if points is None:
            return row_about(pictures, k, None, reason=f"{judge_name(self.writer)} gave no usable answer", **raw)
        return row_about(pictures, k, sum(points) / len(points), **raw)

    def verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        return points_by(rows, files.dimension_of)

    def aggregate(self, rows: Sequence[Row]) -> Report:
        return aggregate(rows, self.label)

    def official_pictures(self, folder: Path, prompts: Sequence[Prompt], samples: int) -> Layout:
        return files.find_pictures(folder, prompts)

    def export_official(self, folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
        for picture_set in pictures:
            files.write_pictures(folder, picture_set)

    def import_official(self, file: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
        return files.read_results(file)


def points_by(rows: Sequence[Row], group_of: Callable[[str], str]) -> list[PromptVerdicts]:
    """Collect each prompt's test points of each group, over all its pictures.

    group_of: kind of test point → its group. A picture without points has no verdict on each test point that its tag
    names.
    """
    points_of_group: dict[tuple[int, str, str], list[float]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        kinds = files.kinds_of(row["tag"])
        for kind, point in zip(kinds, row.get("points") or [math.nan] * len(kinds), strict=True):
            points_of_group.setdefault((row["prompt_index"], row["prompt_id"], group_of(kind)), []).append(
                number_or_nan(point)
            )
    return [PromptVerdicts(group, points, prompt) for (_, prompt, group), points in points_of_group.items()]


def aggregate(rows: Sequence[Row], label: str, *, seed: int = 0) -> Report:
    """Make the report: the mean of the primary dimensions, as on the leaderboard.

    Each dimension pools its test points.
    """
    verdicts = points_by(rows, files.dimension_of)
    scores = per_task(verdicts, seed=seed)
    kinds = per_task(points_by(rows, str), seed=seed)
    missing = [name for name in DIMENSIONS if name not in scores]
    return Report(
        label=label,
        overall=crossed_score(verdicts, seed=seed),
        columns={name: scores[name] for name in (*DIMENSIONS, *scores) if name in scores},
        extra={
            "sub_dimensions": {
                kind: {"value": s.value, "low": s.low, "high": s.high, "points": s.pictures}
                for kind, s in kinds.items()
            }
        },
        notes=[f"no test point of {', '.join(missing)}: the overall is not UniGenBench's"] if missing else [],
        scale=100.0,
        unit="test points",
    )
