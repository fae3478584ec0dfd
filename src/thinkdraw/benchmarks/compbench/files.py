"""T2I-CompBench's files: `<category>/samples/<prompt>_NNNNNN.png`, and each scorer's results as JSON.

Pictures are numbered over a category, those of a prompt one after the other; results name them by these numbers.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from thinkdraw.benchmarks.base import Layout, PictureSet, Row
from thinkdraw.benchmarks.picture_files import Finder
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
"""Category → folder of its vqa_result.json below the category's, the file beside it with the mean, and how that begins."""
_ANSWERS = "vqa_result.json"
_NUMBER = re.compile(r".*_(\d+)\.[^.]*")


def sample_name(prompt: str, number: int) -> str:
    """number: over the whole category, from 0."""
    return f"{prompt}_{number:06d}.png"


def find_pictures(folder: Path, prompts: Sequence[Prompt], per_prompt: int) -> Layout:
    """The pictures of known prompts, category by category. A folder of one category may itself hold `samples`.

    Their numbers tell sample from sample where they run as upstream's do, with `per_prompt` or as many as there are of
    some prompt; else the order of the numbers does, which is noted.
    """
    layout = Finder("CATEGORY/samples/PROMPT_000000.png")
    categories = _by_category(prompts)
    for category, indices in categories.items():
        samples = folder / category / "samples"
        if len(categories) == 1 and not samples.is_dir():
            samples = folder / "samples"
        known = {prompts[index].text: rank for rank, index in enumerate(indices)}
        found: dict[int, list[tuple[int, Path]]] = {}
        for path in sorted(samples.iterdir()) if samples.is_dir() else ():
            rank, number = known.get(path.name.split("_")[0]), _NUMBER.fullmatch(path.name)
            if not number or path.suffix.lower() not in SUFFIXES:
                layout.leave(path)
            elif rank is None:
                layout.left_out[path] = f"of a text that is no prompt of {category}"
            else:
                found.setdefault(rank, []).append((int(number[1]), path))
        fitting, numbered = _samples(found, per_prompt)
        if not fitting:
            layout.notes.append(
                f"the numbers of {category} are not upstream's, which run over the category: the pictures of a prompt are taken "
                "in the order of their numbers"
            )
        for rank, sample, path in numbered:
            layout.put(indices[rank], sample, path)
    return Layout(dict(sorted(layout.places.items())), layout.expected, layout.left_out, layout.notes)


def write_samples(folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
    """Write the pictures of some prompts, each with as many.

    Raises UserError for a set with a gap or of another number than the first, and where a category's folder holds files
    that do not belong there, which the official scorers would count.
    """
    categories = _by_category(prompts)
    ranks = {index: rank for indices in categories.values() for rank, index in enumerate(indices)}
    count = None
    checked: set[str] = set()
    for drawn in pictures:
        count, category = count or len(drawn.samples), drawn.prompt.tag
        if drawn.samples != tuple(range(count)):
            raise UserError(
                f"prompt {drawn.prompt.text[:60]!r} has pictures {list(drawn.samples)}, others {count}: T2I-CompBench's "
                "scorers need the same number everywhere. Draw the missing ones."
            )
        samples = folder / category / "samples"
        if category not in checked:
            names = {
                sample_name(prompts[i].text, ranks[i] * count + k) for i in categories[category] for k in range(count)
            }
            _refuse_others(samples, names)
            checked.add(category)
        for sample, picture in zip(drawn.samples, drawn.pictures, strict=True):
            name = sample_name(drawn.prompt.text, ranks[drawn.index] * count + sample)
            atomic_write_bytes(samples / name, to_png(picture))


def read_results(path: Path, prompts: Sequence[Prompt]) -> list[Row]:
    """Rows of a vqa_result.json, or of all that lie below a folder where the official scorers leave them.

    The category is the one that a folder above the file is called, or that of all prompts. Raises UserError where it is
    not told, for another number of answers than a whole number per prompt, and for a file of a part of a score.
    """
    if path.is_dir():
        files = [path / category / RESULTS[category][0] / _ANSWERS for category in RESULTS]
        if not (found := [file for file in files if file.is_file()]):
            raise UserError(f"{path} holds no results of T2I-CompBench's scorers ({files[0].relative_to(path)}, …).")
        return [row for file in found for row in read_results(file, prompts)]
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
    """(question_id → answer, label) of a vqa_result.json; null, which is ours, is no verdict. UserError if malformed.

    label: who judged, where the file is one of `write_results`.
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
    """Write each category's vqa_result.json and mean below `folder`, as the official scorers do; returns the JSON files.

    A picture without a verdict has the answer null and is left out of the mean. Every answer says who judged, in a key
    that official scripts do not read.
    """
    written = []
    by_category: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        by_category.setdefault(row["tag"], []).append(row)
    for category, found in by_category.items():
        place, mean_file, opening = RESULTS[category]
        as_text = place == "annotation_blip"
        answers = [f"{v:.4f}" if as_text and v is not None else v for v in (row["verdict"] for row in found)]
        target = folder / category / place
        atomic_write_json(
            target / _ANSWERS, [{"question_id": i, "answer": a, "label": label} for i, a in enumerate(answers)]
        )
        judged = [float(answer) for answer in answers if answer is not None]
        mean = sum(judged) / len(judged) if judged else float("nan")
        counted = f"{sum(judged)} num:{len(judged)} avg:" if category == "numeracy" else ""
        atomic_write_text(target / mean_file, f"{opening}{counted}{mean}")
        written.append(target / _ANSWERS)
    return written


def _by_category(prompts: Sequence[Prompt]) -> dict[str, list[int]]:
    """Category → the indices of its prompts, in order."""
    found: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        found.setdefault(prompt.tag, []).append(index)
    return found


def _samples(
    found: Mapping[int, Sequence[tuple[int, Path]]], per_prompt: int
) -> tuple[bool, list[tuple[int, int, Path]]]:
    """Whether numbers run as upstream's; and (prompt's rank in the category, sample, file)."""
    most = max((len(files) for files in found.values()), default=1)
    fitting = [n for n in (per_prompt, most) if all(number // n == rank for rank in found for number, _ in found[rank])]
    numbered = [
        (rank, number % fitting[0] if fitting else place, path)
        for rank, files in found.items()
        for place, (number, path) in enumerate(sorted(files))
    ]
    return bool(fitting) or not found, numbered


def _refuse_others(samples: Path, names: set[str]) -> None:
    others = sorted({path.name for path in samples.iterdir()} - names) if samples.is_dir() else []
    if others:
        raise UserError(
            f"{samples} already holds {len(others)} other files, {others[0]!r} first. Choose an empty folder."
        )


def _category_of(path: Path, categories: Sequence[str]) -> str:
    named = [part for part in reversed(path.parts[:-1]) if part in RESULTS]
    category = named[0] if named else categories[0]
    if category not in categories or (not named and len(categories) > 1):
        raise UserError(
            f"{path}: its folders do not say which of {', '.join(categories)} it is about. Keep it below the category's "
            "folder, or give the prompts of one category."
        )
    if path.parent.name != Path(RESULTS[category][0]).name:
        raise UserError(f"{path} is a part of a score; that of {category} is in {RESULTS[category][0]}/{_ANSWERS}.")
    return category


def _row(prompt: Prompt, index: int, sample: int, answer: float | None) -> Row:
    return {
        "prompt_index": index, "prompt_id": prompt.id, "prompt": prompt.text, "tag": prompt.tag, "sample": sample,
        "verdict": answer,
    }  # fmt: skip
