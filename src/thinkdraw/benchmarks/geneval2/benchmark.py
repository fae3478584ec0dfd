"""GenEval 2: 800 prompts of 3 to 10 atoms, each asked about on its own.

Kamath et al. 2025, arXiv 2512.16853. The judge gives probabilities of answers; `soft_tifa` makes scores of them. The
prompts are CC BY-NC: for evaluation only.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from thinkdraw.benchmarks.base import (
    Layout,
    PictureFile,
    PictureSet,
    Report,
    Row,
    judge_name,
    number_or_nan,
    require_judge,
    row_about,
    verdicts_by_prompt,
)
from thinkdraw.benchmarks.geneval2.soft_tifa import (
    QUESTION_FORMAT,
    answer_strings,
    arithmetic_mean,
    counts_as_yes_no,
    geometric_mean,
)
from thinkdraw.benchmarks.statistics import PromptVerdicts, mean_interval, per_task
from thinkdraw.data.prompt_files import text_of
from thinkdraw.data.text_files import json_rows, json_value, text_file
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.runtime.files import atomic_write_bytes, atomic_write_json
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Prompt, Question, Questioner

IMAGES = "images.json"
SKILLS = ("object", "attribute", "count", "position", "verb")
ATOMS = tuple(str(count) for count in range(3, 11))


@runtime_checkable
class WordJudge(Protocol):
    """A judge of first words: the probability that a reply begins with given strings.

    pictures: (B, H, W, 3) uint8. texts: B messages, sent as they are. strings: B lists. The probabilities of the
    strings' first tokens, at the reply's first position, are added up; a token that occurs twice counts twice. →
    (B,), NaN = no verdict.
    """

    def first_words(self, pictures: Tensor, texts: Sequence[str], strings: Sequence[Sequence[str]]) -> Tensor: ...


class GenEval2:
    """GenEval 2: 800 prompts of 3 to 10 atoms, each atom asked about on its own.

    It needs a `WordJudge`, which gives the published metric, Soft-TIFA. Any `Questioner` works, too, with "yes-no" in
    the label. That is another metric: counts are asked as yes/no questions, and probabilities are of yes against no.
    """

    name = "geneval2"
    folder = "geneval2"
    prompt_file = "geneval2_data.jsonl"
    num_prompts = 800
    official_sha256: Sequence[str] = ("09233adbc9f877fba205f1a20efa4a8640e7e62a91dfd55893562bed8a928e43",)
    roles: Mapping[str, str] = {"questioner": "vlm-words"}
    pictures_per_prompt = 1

    def __init__(self, questioner: WordJudge | Questioner | None = None):
        self.questioner = questioner

    @property
    def label(self) -> str:
        kinds = [judge_name(self.questioner)]
        if not isinstance(self.questioner, WordJudge):
            kinds.append("hard-yes-no" if getattr(self.questioner, "hard", False) else "yes-no")
        return f"{self.name}[{'+'.join(kinds)}]"

    def prompts(self, path: Path) -> list[Prompt]:
        prompts = [_prompt(row, index, f"{path} line {line}") for index, (line, row) in enumerate(json_rows(path))]
        if not prompts:
            raise UserError(f"{path} holds no prompt. Give GenEval 2's {self.prompt_file}.")
        return prompts

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        require_judge(self.name, "questioner", self.questioner)

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        rows = []
        for pictures in sets:
            for k, picture in enumerate(pictures.pictures):
                scores = self._ask(torch.from_numpy(picture.copy()), pictures.prompt.questions)
                skills = [question.category for question in pictures.prompt.questions]
                missing = (
                    {"reason": f"{judge_name(self.questioner)} gave no verdict"} if any(map(math.isnan, scores)) else {}
                )
                raw: JsonObject = {"scores": scores, "skills": skills, "mean": arithmetic_mean(scores), **missing}
                rows.append(row_about(pictures, k, geometric_mean(scores), **raw))
        return rows

    def _ask(self, picture: Tensor, questions: Sequence[Question]) -> list[float]:
        """Compute the soft score of each question."""
        pairs = [(question.text, str((question.fact or {}).get("answer", "Yes"))) for question in questions]
        pictures = picture.expand(len(pairs), -1, -1, -1)
        if isinstance(self.questioner, WordJudge):
            texts = [QUESTION_FORMAT.format(question=text) for text, _ in pairs]
            scores = self.questioner.first_words(pictures, texts, [answer_strings(*pair) for pair in pairs])
        else:
            assert self.questioner is not None
            texts = [counts_as_yes_no(*pair) if pair[0].startswith("How many") else pair[0] for pair in pairs]
            scores = self.questioner.answer(pictures, texts)
        return [float(score) for score in scores.float().cpu()]

    def verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        return [row._replace(task="GM") for row in verdicts_by_prompt(rows)]

    def column_verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        """Return verdicts with tasks AM, each skill, and GM of each number of atoms."""
        gm, am = (verdicts_by_prompt(rows, key) for key in ("verdict", "mean"))
        atoms = [row._replace(task=f"{row.task} atoms") for row in gm]
        return [*(row._replace(task="AM") for row in am), *_of_skills(rows), *atoms]

    def aggregate(self, rows: Sequence[Row]) -> Report:
        return aggregate(rows, self.label)

    def official_pictures(self, folder: Path, prompts: Sequence[Prompt], samples: int) -> Layout:
        """Find the pictures that images.json (prompt text → path) names.

        A path is tried as it is, below the folder, and by its name in the folder.
        """
        path = folder / IMAGES
        path_of_prompt = _read_json(path, dict)
        of_text = {prompt.text: index for index, prompt in enumerate(prompts)}
        if unknown := [text for text in path_of_prompt if text not in of_text]:
            raise UserError(f"{path}: {unknown[0][:60]!r} is not one of GenEval 2's prompts. Correct it.")
        if malformed := [text for text, file in path_of_prompt.items() if not isinstance(file, str)]:
            raise UserError(f"{path}: {malformed[0][:60]!r} does not name a file. Write prompt → path.")
        files: dict[tuple[int, int], PictureFile] = {}
        prompt_of: dict[Path, str] = {}
        for text, file in path_of_prompt.items():
            candidates = [Path(file), folder / file, folder / Path(file).name]
            if existing := [candidate for candidate in candidates if candidate.is_file()]:
                owner = prompt_of.setdefault(existing[0].resolve(), text)
                if owner != text:
                    raise UserError(
                        f"{path}: {owner[:60]!r} and {text[:60]!r} are both {existing[0]}. Give each its picture."
                    )
                files[of_text[text], 0] = PictureFile(existing[0])
        return Layout(files, f"{IMAGES}: prompt → path")

    def export_official(self, folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
        path_of_prompt = {}
        for picture_set in pictures:
            path = folder.resolve() / f"{picture_set.index:05d}.png"
            atomic_write_bytes(path, to_png(picture_set.pictures[0]))
            path_of_prompt[picture_set.prompt.text] = str(path)
        atomic_write_json(folder / IMAGES, path_of_prompt)

    def import_official(self, file: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
        """Read the scorer's list of lists of soft scores, in the data file's order."""
        if prompts is None:
            raise UserError(f"{file.name} does not name its prompts. Give them: prompts={self.prompt_file}.")
        lists = _read_json(file, list)
        if len(lists) != len(prompts):
            raise UserError(
                f"{file} has scores of {len(lists)} prompts, the prompt file {len(prompts)}. Give the right one."
            )
        rows = []
        for index, (prompt, scores) in enumerate(zip(prompts, lists, strict=True)):
            if not isinstance(scores, list) or len(scores) != len(prompt.questions):
                raise UserError(
                    f"{file}: entry {index} is not a list of {len(prompt.questions)} scores. Give the scorer's file."
                )
            numbers = [number_or_nan(score) for score in scores]
            skills = [question.category for question in prompt.questions]
            alone = PictureSet(index, prompt, (0,), ())
            rows.append(
                row_about(
                    alone, 0, geometric_mean(numbers), scores=numbers, skills=skills, mean=arithmetic_mean(numbers)
                )
            )
        return rows


def aggregate(rows: Sequence[Row], label: str, *, seed: int = 0) -> Report:
    """Make the report: Soft-TIFA GM, and its columns.

    Columns: AM, atoms of each skill, and GM of the prompts of each number of atoms.
    """
    gm, am = (verdicts_by_prompt(rows, key) for key in ("verdict", "mean"))
    prompt_means = [_mean(row.verdicts) for row in gm]
    skills = _of_skills(rows)
    of_skill = per_task(skills, seed=seed) if skills else {}
    of_atoms = per_task([row._replace(verdicts=[mean]) for row, mean in zip(gm, prompt_means)], seed=seed)
    columns = {"AM": mean_interval([_mean(row.verdicts) for row in am], seed=seed)}
    columns |= {skill: of_skill[skill] for skill in SKILLS if skill in of_skill}
    columns |= {f"{atoms} atoms": of_atoms[atoms] for atoms in ATOMS if atoms in of_atoms}
    return Report(label=label, overall=mean_interval(prompt_means, seed=seed), columns=columns, scale=100.0)


def _prompt(row: JsonMapping, index: int, where: str) -> Prompt:
    """Build a prompt from a row.

    A question's `fact` holds the expected answer, its category the skill; the tag is the number of atoms.
    """
    pairs, skills = row.get("vqa_list"), row.get("skills")
    if not isinstance(pairs, list) or not isinstance(skills, list) or len(pairs) != len(skills) or not pairs:
        raise UserError(f"{where}: vqa_list and skills are not lists of the same length. Correct that line.")
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise UserError(f"{where}: vqa_list does not hold pairs of question and answer. Correct that line.")
    questions = tuple(
        Question(i, str(text), fact={"answer": str(answer)}, category=str(skill))
        for i, ((text, answer), skill) in enumerate(zip(pairs, skills), start=1)
    )
    text = text_of(dict(row), "prompt", where)
    return Prompt(text, f"{index:05d}", str(row.get("atom_count", "")), questions=questions)


def _of_skills(rows: Sequence[Row]) -> list[PromptVerdicts]:
    """Make one entry per skill and prompt: the bootstrap redraws prompts, not atoms."""
    scores_of_skill: dict[tuple[str, str], list[float]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        for skill, score in zip(row.get("skills", ()), row.get("scores", ())):
            scores_of_skill.setdefault((skill, row["prompt_id"]), []).append(number_or_nan(score))
    return [PromptVerdicts(task, values, prompt) for (task, prompt), values in scores_of_skill.items()]


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _read_json(path: Path, kind: type) -> Any:
    content = json_value(text_file(path), str(path))
    if not isinstance(content, kind):
        raise UserError(f"{path} holds a {type(content).__name__}, not a {kind.__name__}. Give the right file.")
    return content
