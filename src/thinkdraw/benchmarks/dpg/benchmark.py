"""DPG-Bench: 1,065 long prompts, each taken apart into questions (Hu et al. 2024, arXiv 2403.05135).

What an answer counts and what the published script gets wrong says `thinkdraw.benchmarks.dpg.rules`; grids and result files are
read and written by `dpg_files`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from thinkdraw.benchmarks.base import (
    Layout,
    PictureSet,
    Report,
    Row,
    batches_by_size,
    check_given,
    judge_name,
    row_about,
    verdicts_by_prompt,
)
from thinkdraw.benchmarks.dpg import files as dpg_files
from thinkdraw.benchmarks.dpg.rules import (
    CropScore,
    DroppedItem,
    Mode,
    category_points,
    category_scores,
    crop_score,
    first_level,
    prompts_of_table,
)
from thinkdraw.benchmarks.statistics import PromptVerdicts, per_task, prompt_mean_score
from thinkdraw.data.text_files import csv_rows
from thinkdraw.errors import UserError
from thinkdraw.rewards.judging import p_yes
from thinkdraw.types import Prompt, Question, Questioner

COLUMNS = ("item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language")
FileLayout = Literal["auto", "grid", "single"]
CATEGORIES = ("global", "entity", "attribute", "relation", "other")


class DpgBench:
    """DPG-Bench's rules over any `Questioner`; its own judge, mPLUG-large, is named only where its results are imported.

    mode: `official` keeps the defects of the published script, `fixed` has none; see `thinkdraw.benchmarks.dpg.rules`.
    layout: what a file holds that others drew. `grid`: four pictures, 2×2, as upstream's `--pic-num 4`; `single`: one, as its
    `--pic-num 1`; `auto`: one where one picture per prompt is asked for, else a grid.
    batch: pictures whose questions are asked at once.
    """

    name = "dpg"
    folder = "dpg_bench"
    prompt_file = "dpg_bench.csv"
    num_prompts = 1065
    official_sha256: Sequence[str] = ("git:98457fc9901943f51ff9a30367250fc292533bed",)
    roles: Mapping[str, str] = {"questioner": "blip-vqa"}
    pictures_per_prompt = 4

    def __init__(
        self,
        questioner: Questioner | None = None,
        mode: Mode = "official",
        layout: FileLayout = "auto",
        batch: int = 16,
    ):
        if mode not in ("official", "fixed"):
            raise UserError(f"dpg: mode={mode!r}: choose official or fixed.")
        if layout not in get_args(FileLayout):
            raise UserError(f"dpg: layout={layout!r}: choose {', '.join(get_args(FileLayout))}.")
        self.questioner, self.layout, self.batch = questioner, layout, batch
        self.mode: Mode = mode

    @property
    def label(self) -> str:
        fixed = ",fixed" if self.mode == "fixed" else ""
        return f"{self.name}[{judge_name(self.questioner)}{fixed}]"

    def prompts(self, path: Path) -> list[Prompt]:
        table = path / self.prompt_file if path.is_dir() else path
        if table.suffix != ".csv" or not table.is_file():
            raise UserError(
                f"{table}: DPG-Bench is scored by its question table. Get dpg_bench/dpg_bench.csv of "
                "github.com/TencentQQGYLab/ELLA and give its path."
            )
        return prompts_of_table((row for _, row in csv_rows(table, COLUMNS)), self.mode)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        check_given(self.name, "questioner", self.questioner)

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        rows: dict[tuple[int, int], Row] = {}
        for places, pictures in batches_by_size(sets, self.batch):
            assert self.questioner is not None
            asked = [[question.text for question in sets[i].prompt.questions] for i, _ in places]
            for (i, k), given in zip(places, p_yes(self.questioner, pictures, asked), strict=True):
                rows[i, k] = self._row(sets[i], k, given.tolist())
        return [rows[place] for place in sorted(rows)]

    def _row(self, pictures: PictureSet, k: int, given: Sequence[float]) -> Row:
        questions = pictures.prompt.questions
        answers = [dpg_files.answer_about(question, p_yes=p) for question, p in zip(questions, given, strict=True)]
        raw = {"answers": answers, "side": len(pictures.pictures[k])}
        try:
            score = crop_score(questions, {question.id: p for question, p in zip(questions, given)}).score
        except DroppedItem as error:
            reason = f"dropped, as upstream drops it: {error}"
            return row_about(pictures, k, None, reason=reason, left_out=True, **raw)
        reason = (
            f"{judge_name(self.questioner)} gave no verdict on a question that matters" if math.isnan(score) else ""
        )
        return row_about(pictures, k, score, reason=reason, **raw)

    def verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        return verdicts_by_prompt(_without_dropped(rows))

    def column_verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        """A task per first-level category."""
        return _by_first_level(points_by_prompt(_without_dropped(rows), self.mode))

    def aggregate(self, rows: Sequence[Row]) -> Report:
        return aggregate(rows, self.label, self.mode)

    def official_pictures(self, folder: Path, prompts: Sequence[Prompt], samples: int) -> Layout:
        return dpg_files.find_pictures(
            folder, prompts, self.layout == "grid" or (self.layout == "auto" and samples > 1)
        )

    def export_official(self, folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
        for drawn in pictures:
            dpg_files.write_file(folder, drawn)

    def import_official(self, file: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
        return dpg_files.rows_of(file, prompts)

    def write_results(self, folder: Path, rows: Sequence[Row]) -> None:
        """Nothing where a prompt has more pictures than a grid holds."""
        if any(row["sample"] >= len(dpg_files.CELLS) for row in rows):
            return
        levels = self.aggregate(rows).extra
        rows = _without_dropped(rows)
        path = folder / "dpg-bench_results.txt"
        dpg_files.write_results(path, rows, ".", self.label, levels["first_level"], levels["second_level"])
        dpg_files.write_details(path, rows)

    def check_missing(self, missing: Sequence[tuple[int, int]], prompts: Sequence[Prompt]) -> None:
        """In mode `fixed` the score is of all items or there is none; upstream, and `official`, score what is there."""
        if self.mode == "fixed" and missing:
            items = list(dict.fromkeys(prompts[index].id for index, _ in missing))
            named = ", ".join(map(str, items[:5])) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
            raise UserError(
                f"dpg: {len(missing)} pictures of {len(items)} items are missing ({named}), which mode=fixed refuses. Draw "
                "them, or score what is there: --set mode=official."
            )


def aggregate(rows: Sequence[Row], label: str, mode: Mode = "official", *, seed: int = 0) -> Report:
    """The overall is the mean over items, 100 times which is DPG-Bench; a column per category of the first level.

    An item is the mean of its pictures that have a verdict. A column is the mean of its questions' points, in `official`
    mode those of each prompt's last judged picture only.
    extra: categories, of both levels, 0..100, and the dropped items.
    """
    dropped = dropped_items(rows)
    rows = _without_dropped(rows)
    points = points_by_prompt(rows, mode)
    columns = per_task(_by_first_level(points), seed=seed) if any(points.values()) else {}
    first, second = category_scores(points.values())
    return Report(
        label=label,
        overall=prompt_mean_score(verdicts_by_prompt(rows), seed=seed),
        columns={name: columns[name] for name in (*CATEGORIES, *columns) if name in columns},
        extra={"first_level": first, "second_level": second, "dropped_items": dropped, "mode": mode},
        notes=[f"{len(dropped)} items are dropped, as upstream drops them: {', '.join(dropped[:5])}"]
        if dropped
        else [],
        scale=100.0,
    )


def dropped_items(rows: Sequence[Row]) -> list[str]:
    """Prompts that upstream drops: one picture whose questions cannot be scored takes the others along."""
    return sorted({row["prompt_id"] for row in rows if row.get("left_out")})


def _without_dropped(rows: Sequence[Row]) -> list[Row]:
    """The same rows, those of dropped items without verdict and answers."""
    dropped = set(dropped_items(rows))
    return [{**row, "verdict": None, "answers": []} if row["prompt_id"] in dropped else row for row in rows]


def points_by_prompt(rows: Sequence[Row], mode: Mode) -> dict[str, dict[str, list[float]]]:
    """Prompt id → second-level category → points before zeroing, of the pictures whose rows hold answers."""
    crops: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        if row.get("answers"):
            crops.setdefault(row["prompt_id"], []).append(row)
    points = {}
    for prompt, found in crops.items():
        judged = [_score_again(row) for row in found]
        points[prompt] = category_points(judged[-1][0], [crop.raw for _, crop in judged], mode)
    return points


def _score_again(row: Row) -> tuple[list[Question], CropScore]:
    """A row's questions and their points, from the answers that it keeps."""
    questions = [Question(a["id"], "", tuple(a["depends_on"]), category=a["category"]) for a in row["answers"]]
    return questions, crop_score(questions, {a["id"]: a.get("answer", a.get("p_yes")) for a in row["answers"]})


def _by_first_level(points: Mapping[str, Mapping[str, Sequence[float]]]) -> list[PromptVerdicts]:
    found: dict[tuple[str, str], list[float]] = {}
    for prompt, categories in points.items():
        for category, values in categories.items():
            found.setdefault((first_level(category), prompt), []).extend(values)
    return [PromptVerdicts(category, values, prompt) for (category, prompt), values in found.items()]
