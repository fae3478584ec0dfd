"""T2I-CompBench's files: pictures by category, and each scorer's results as JSON.

A picture is `<category>/samples/<prompt>_NNNNNN.png`. Numbers run over a whole category, those of one prompt in a
row; results name pictures by these numbers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from thinkdraw.benchmarks.base import Layout, PictureSet, Row
from thinkdraw.benchmarks.picture_files import LayoutBuilder
from thinkdraw.data.text_files import json_value, text_file
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.picture_reader import SUFFIXES
from thinkdraw.runtime.files import atomic_write_bytes, atomic_write_json, atomic_write_text
from thinkdraw.types import Prompt

RESULTS: Mapping[str, tuple[str, str, str]] = {
    **dict.fromkeys(("color", "shape", "texture"), ("annotation_blip", "blip_vqa_score.txt", "BLIP-VQA score:")),
    "spatial": ("labels/annotation_obj_detection_2d", "avg_score.txt", "score avg:"),
    "3d_spatial": ("labels/annotation_obj_detection_3d", "avg_result.txt", "avg score is "),
    "numeracy": ("annotation_num", "score.txt", "total:"),
    "non_spatial": ("annotation_clip", "score_avg.txt", "score avg:"),
    "complex": ("annotation_3_in_1", "vqa_score.txt", "score avg:"),
}
"""Category → (subfolder with its vqa_result.json, the file there with the mean, how that file begins)."""
_ANSWERS = "vqa_result.json"
_NUMBER = re.compile(r".*_(\d+)\.[^.]*")


def sample_name(prompt: str, number: int) -> str:
    """Name a picture's file; number: over the whole category, from 0."""
    return f"{prompt}_{number:06d}.png"


def find_pictures(folder: Path, prompts: Sequence[Prompt], per_prompt: int) -> Layout:
    """Find the pictures of known prompts, category by category.

    A folder of one category may hold `samples` itself. A number tells prompt and sample if numbers run as upstream's
    do, with `per_prompt` or as many as some prompt has. Otherwise the order of the numbers does, which is noted.
    """
    layout = LayoutBuilder("CATEGORY/samples/PROMPT_000000.png")
    categories = _by_category(prompts)
    for category, indices in categories.items():
        samples = folder / category / "samples"
        if len(categories) == 1 and not samples.is_dir():
            samples = folder / "samples"
        known = {prompts[index].text: rank for rank, index in enumerate(indices)}
        files_of_rank: dict[int, list[tuple[int, Path]]] = {}
        for path in sorted(samples.iterdir()) if samples.is_dir() else ():
            rank, number = known.get(path.name.split("_")[0]), _NUMBER.fullmatch(path.name)
            if not number or path.suffix.lower() not in SUFFIXES:
                layout.skip(path)
            elif rank is None:
                layout.left_out[path] = f"of a text that is no prompt of {category}"
            else:
                files_of_rank.setdefault(rank, []).append((int(number[1]), path))
        fitting, numbered = _samples(files_of_rank, per_prompt)
        if not fitting:
            layout.notes.append(
                f"the numbers of {category} are not upstream's, which run over the category: the pictures of a prompt are taken "
                "in the order of their numbers"
            )
        for rank, sample, path in numbered:
            layout.add(indices[rank], sample, path)
    return Layout(dict(sorted(layout.files.items())), layout.expected, layout.left_out, layout.notes)


def write_samples(folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
    """Write the pictures of some prompts, the same number for each.

    Raises UserError for a set with a gap or with another number than the first, and where a category's folder holds
    files that do not belong there, which the official scorers would count.
    """
    categories = _by_category(prompts)
    ranks = {index: rank for indices in categories.values() for rank, index in enumerate(indices)}
    per_prompt = None
    checked: set[str] = set()
    for picture_set in pictures:
        per_prompt, category = per_prompt or len(picture_set.samples), picture_set.prompt.tag
        if picture_set.samples != tuple(range(per_prompt)):
            raise UserError(
                f"prompt {picture_set.prompt.text[:60]!r} has pictures {list(picture_set.samples)}, others {per_prompt}: T2I-CompBench's "
                "scorers need the same number for each prompt. Draw the missing ones."
            )
        samples = folder / category / "samples"
        if category not in checked:
            names = {
                sample_name(prompts[i].text, ranks[i] * per_prompt + k)
                for i in categories[category]
                for k in range(per_prompt)
            }
            _refuse_other_files(samples, names)
            checked.add(category)
        for sample, picture in zip(picture_set.samples, picture_set.pictures, strict=True):
            name = sample_name(picture_set.prompt.text, ranks[picture_set.index] * per_prompt + sample)
            atomic_write_bytes(samples / name, to_png(picture))


def read_results(path: Path, prompts: Sequence[Prompt]) -> list[Row]:
    """Read the rows of a vqa_result.json, or of all those below a folder.

    They lie where the official scorers leave them. The category is that of a folder above the file, or that of all
    prompts.
    Raises UserError where the category is unclear, where the number of answers is no multiple of that of prompts, and
    for a file with only a part of a score.
    """
    if path.is_dir():
        files = [path / category / RESULTS[category][0] / _ANSWERS for category in RESULTS]
        if not (existing := [file for file in files if file.is_file()]):
            raise UserError(f"{path} holds no results of T2I-CompBench's scorers ({files[0].relative_to(path)}, …).")
        return [row for file in existing for row in read_results(file, prompts)]
    categories = _by_category(prompts)
    category = _category_of(path, list(categories))
    indices, (answers, label) = categories[category], read_answers(path)
    count, rest = divmod(len(answers), len(indices))
    if rest or set(answers) != set(range(len(answers))):
        raise UserError(
            f"{path} has {len(answers)} answers to {len(indices)} prompts of {category}: they must be numbered from 0, the "
            "same number for each prompt. Give the prompts that were drawn."
        )
    return [
        _row(prompts[index], index, k, answers[rank * count + k]) | ({"label": label} if label else {})
        for rank, index in enumerate(indices)
        for k in range(count)
    ]


def read_answers(path: Path) -> tuple[dict[int, float | None], str | None]:
    """Read a vqa_result.json: (question_id → answer, label).

    An answer null, which only our files have, is no verdict. label: who judged, in files of `write_results`.
    Raises UserError if malformed.
    """
    try:
        rows = json_value(text_file(path), str(path))
        answers = {int(row["question_id"]): None if row["answer"] is None else float(row["answer"]) for row in rows}
        labels = {row["label"] for row in rows if "label" in row}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} is not a list of question_id and answer ({type(error).__name__}: {error}). "
            "Give a scorer's vqa_result.json."
        ) from error
    if not answers or len(answers) != len(rows) or len(labels) > 1:
        raise UserError(f"{path} has {len(rows)} rows about {len(answers)} pictures. Give a scorer's vqa_result.json.")
    return answers, next(iter(labels), None)


def write_results(folder: Path, rows: Sequence[Row], label: str) -> list[Path]:
    """Write each category's vqa_result.json and mean as the official scorers do.

    Returns the JSON files. A picture without a verdict has the answer null and is left out of the mean. Every answer
    says who judged, in a key that official scripts do not read.
    """
    paths = []
    by_category: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        by_category.setdefault(row["tag"], []).append(row)
    for category, rows_of_category in by_category.items():
        subfolder, mean_file, opening = RESULTS[category]
        as_text = subfolder == "annotation_blip"
        answers = [f"{v:.4f}" if as_text and v is not None else v for v in (row["verdict"] for row in rows_of_category)]
        target = folder / category / subfolder
        atomic_write_json(
            target / _ANSWERS, [{"question_id": i, "answer": a, "label": label} for i, a in enumerate(answers)]
        )
        judged = [float(answer) for answer in answers if answer is not None]
        mean = sum(judged) / len(judged) if judged else float("nan")
        counted = f"{sum(judged)} num:{len(judged)} avg:" if category == "numeracy" else ""
        atomic_write_text(target / mean_file, f"{opening}{counted}{mean}")
        paths.append(target / _ANSWERS)
    return paths


def _by_category(prompts: Sequence[Prompt]) -> dict[str, list[int]]:
    """Map category → the indices of its prompts, in order."""
    by_category: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_category.setdefault(prompt.tag, []).append(index)
    return by_category


def _samples(
    files_of_rank: Mapping[int, Sequence[tuple[int, Path]]], per_prompt: int
) -> tuple[bool, list[tuple[int, int, Path]]]:
    """Tell whether numbers run as upstream's, and assign files to samples.

    files_of_rank: prompt's rank in its category → (number, file). Returns (rank, sample, file) of each file.
    """
    most = max((len(files) for files in files_of_rank.values()), default=1)
    fitting = [
        n
        for n in (per_prompt, most)
        if all(number // n == rank for rank in files_of_rank for number, _ in files_of_rank[rank])
    ]
    numbered = [
        (rank, number % fitting[0] if fitting else order, path)
        for rank, files in files_of_rank.items()
        for order, (number, path) in enumerate(sorted(files))
    ]
    return bool(fitting) or not files_of_rank, numbered


def _refuse_other_files(samples: Path, names: set[str]) -> None:
    others = sorted({path.name for path in samples.iterdir()} - names) if samples.is_dir() else []
    if others:
        raise UserError(
            f"{samples} already holds {len(others)} other files, such as {others[0]!r}. Choose an empty folder."
        )


def _category_of(path: Path, categories: Sequence[str]) -> str:
    folders = [part for part in reversed(path.parts[:-1]) if part in RESULTS]
    category = folders[0] if folders else categories[0]
    if category not in categories or (not folders and len(categories) > 1):
        raise UserError(
            f"{path}: its folders do not say which of {', '.join(categories)} it is about. Keep it below the category's "
            "folder, or give the prompts of one category."
        )
    if path.parent.name != Path(RESULTS[category][0]).name:
        raise UserError(
            f"{path} holds only a part of a score. Give {RESULTS[category][0]}/{_ANSWERS}, which has that of {category}."
        )
    return category


def _row(prompt: Prompt, index: int, sample: int, answer: float | None) -> Row:
    return {
        "prompt_index": index, "prompt_id": prompt.id, "prompt": prompt.text, "tag": prompt.tag, "sample": sample,
        "verdict": answer,
    }  # fmt: skip
