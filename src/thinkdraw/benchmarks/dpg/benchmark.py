"""DPG-Bench: 1,065 long prompts, each taken apart into questions.

Hu et al. 2024, arXiv 2403.05135. `rules.py` says what an answer counts, and what the published script gets wrong;
`files.py` reads and writes grids and result files.
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
    judge_name,
    require_judge,
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
    """DPG-Bench: 1,065 long prompts, each taken apart into yes/no questions.

    It needs its question table dpg_bench.csv, and a `Questioner`. The label names the judge; the official one,
    mPLUG-large, is named only where its results are imported.
    mode: `official` keeps the defects of the published script, `fixed` has none; see
    `thinkdraw.benchmarks.dpg.rules`.
    layout: what a file that others drew holds. `grid`: four pictures, 2×2, as upstream's `--pic-num 4`; `single`:
    one, as its `--pic-num 1`; `auto`: one where a single picture per prompt is evaluated, else a grid.
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
            raise UserError(f"dpg: mode={mode!r} is unknown: choose official or fixed.")
        if layout not in get_args(FileLayout):
            raise UserError(f"dpg: layout={layout!r} is unknown: choose {', '.join(get_args(FileLayout))}.")
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
                f"{table} is not DPG-Bench's question table, by which it is scored. Get dpg_bench/dpg_bench.csv of "
                "github.com/TencentQQGYLab/ELLA and give its path."
            )
        return prompts_of_table((row for _, row in csv_rows(table, COLUMNS)), self.mode)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        require_judge(self.name, "questioner", self.questioner)

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        rows: dict[tuple[int, int], Row] = {}
        for keys, pictures in batches_by_size(sets, self.batch):
            assert self.questioner is not None
            texts = [[question.text for question in sets[i].prompt.questions] for i, _ in keys]
            for (i, k), p_of_questions in zip(keys, p_yes(self.questioner, pictures, texts), strict=True):
                rows[i, k] = self._row(sets[i], k, p_of_questions.tolist())
        return [rows[key] for key in sorted(rows)]

    def _row(self, pictures: PictureSet, k: int, p_of_questions: Sequence[float]) -> Row:
        questions = pictures.prompt.questions
        answers = [
            dpg_files.answer_record(question, p_yes=p) for question, p in zip(questions, p_of_questions, strict=True)
        ]
        raw = {"answers": answers, "side": len(pictures.pictures[k])}
        try:
            score = crop_score(questions, {question.id: p for question, p in zip(questions, p_of_questions)}).score
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
        """Return the points of each first-level category, as tasks."""
        return _by_first_level(points_by_prompt(_without_dropped(rows), self.mode))

    def aggregate(self, rows: Sequence[Row]) -> Report:
        return aggregate(rows, self.label, self.mode)

    def official_pictures(self, folder: Path, prompts: Sequence[Prompt], samples: int) -> Layout:
        return dpg_files.find_pictures(
            folder, prompts, self.layout == "grid" or (self.layout == "auto" and samples > 1)
        )

    def export_official(self, folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
        for picture_set in pictures:
            dpg_files.write_file(folder, picture_set)

    def import_official(self, file: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
        return dpg_files.rows_of_results(file, prompts)

    def write_results(self, folder: Path, rows: Sequence[Row]) -> None:
        """Write the results files, if no prompt has more pictures than a grid holds."""
        if any(row["sample"] >= len(dpg_files.CELLS) for row in rows):
            return
        levels = self.aggregate(rows).extra
        rows = _without_dropped(rows)
        path = folder / "dpg-bench_results.txt"
        dpg_files.write_results(path, rows, ".", self.label, levels["first_level"], levels["second_level"])
        dpg_files.write_details(path, rows)

    def check_missing(self, missing: Sequence[tuple[int, int]], prompts: Sequence[Prompt]) -> None:
        """Raise UserError for missing pictures in mode `fixed`: all are scored, or none.

        Upstream, and mode `official`, score the pictures that exist.
        """
        if self.mode == "fixed" and missing:
            items = list(dict.fromkeys(prompts[index].id for index, _ in missing))
            first_items = ", ".join(map(str, items[:5])) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
            raise UserError(
                f"dpg: {len(missing)} pictures of {len(items)} items are missing ({first_items}), which mode=fixed refuses. Draw "
                "them, or score what is there: settings.mode=official."
            )


def aggregate(rows: Sequence[Row], label: str, mode: Mode = "official", *, seed: int = 0) -> Report:
    """Make the report: the mean over items, and a column per first-level category.

    100 times the overall is the DPG-Bench score. An item is the mean of its pictures that have a verdict. A column is
    the mean of its questions' points, in `official` mode only those of each prompt's last judged picture.
    extra: categories of both levels, 0..100, and the dropped items.
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
    """List the prompts that upstream drops.

    One picture whose questions cannot be scored drops the whole item.
    """
    return sorted({row["prompt_id"] for row in rows if row.get("left_out")})


def _without_dropped(rows: Sequence[Row]) -> list[Row]:
    """Return the rows; those of dropped items lose verdict and answers."""
    dropped = set(dropped_items(rows))
    return [{**row, "verdict": None, "answers": []} if row["prompt_id"] in dropped else row for row in rows]


def points_by_prompt(rows: Sequence[Row], mode: Mode) -> dict[str, dict[str, list[float]]]:
    """Map prompt id → second-level category → points before zeroing.

    Only pictures whose rows hold answers count.
    """
    crops: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        if row.get("answers"):
            crops.setdefault(row["prompt_id"], []).append(row)
    points = {}
    for prompt, crops_of_prompt in crops.items():
        judged = [_score_again(row) for row in crops_of_prompt]
        points[prompt] = category_points(judged[-1][0], [crop.raw for _, crop in judged], mode)
    return points


def _score_again(row: Row) -> tuple[list[Question], CropScore]:
    """Recompute a row's questions and their points from the answers that it keeps."""
    questions = [Question(a["id"], "", tuple(a["depends_on"]), category=a["category"]) for a in row["answers"]]
    return questions, crop_score(questions, {a["id"]: a.get("answer", a.get("p_yes")) for a in row["answers"]})


def _by_first_level(points: Mapping[str, Mapping[str, Sequence[float]]]) -> list[PromptVerdicts]:
    points_of_task: dict[tuple[str, str], list[float]] = {}
    for prompt, categories in points.items():
        for category, values in categories.items():
            points_of_task.setdefault((first_level(category), prompt), []).extend(values)
    return [PromptVerdicts(category, values, prompt) for (category, prompt), values in points_of_task.items()]
