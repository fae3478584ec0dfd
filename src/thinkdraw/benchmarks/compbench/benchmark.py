"""T2I-CompBench++: eight categories of 300 prompts each.

Huang et al. 2023, arXiv 2307.06350, and TPAMI 2025. `judge.py` asks the judges and scores their answers; `files.py`
reads and writes the official files.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from thinkdraw.benchmarks.base import (
    Layout,
    PictureSet,
    Report,
    Row,
    batches_by_size,
    judge_name,
    row_about,
    verdicts_by_prompt,
)
from thinkdraw.benchmarks.compbench import files as compbench_files
from thinkdraw.benchmarks.compbench.asker import CATEGORIES, Asker, WordAsker
from thinkdraw.benchmarks.compbench.complex import comparison_key
from thinkdraw.benchmarks.compbench.judge import CompBenchJudge, CompBenchVerdict
from thinkdraw.benchmarks.compbench.scales import DepthJudge
from thinkdraw.benchmarks.statistics import PromptVerdicts, per_task, task_mean_score
from thinkdraw.data.prompt_files import read_compbench, read_text
from thinkdraw.data.structure.noun_chunks import OFFICIAL_MODEL, Parse, open_parser, read_objects
from thinkdraw.errors import UserError
from thinkdraw.types import Detector, Prompt, Questioner, Scorer

OFFICIAL_SHA256 = (
    "0bff1b5c08d3595eaaf9e53a32ea7cdb2533b8f406a422ec0613548f2e0ed1d4",
    "1634259756dbc77d13093d907d414480080ec9790a8c97ad09efaea7b2534f2d",
    "37e1a276906c7ea9516cbd7ac8501be896006c0c17ca7344f260562834455bae",
    "fbb5363515b4a28009e360afaaaf389d2dd2289e50dbb0c6ef4ea0c7fe4f3d4f",
    "8707a1d7e42ce3002d95363cf55f74bd043c843ae27108f5125aaaa7840ca988",
    "c9953597315f36a5fcb41291bb19bdc6ab5f64a0fa760d691b4854a73f5d1fe9",
    "dad8df141604b70ba7554bec724e3db0a80023680769b5c514854ea2d2527bbe",
    "04c56cc9ac441dc9ea6c5157652058bd1635b5308526dd31bb29a1caab9a758d",
    "1b808018b8d9916db3d47d5aa2ef18377a3549a56901a474156f799824cdf3b4",
)
"""Hashes of all prompts together, and of the file of each of `CATEGORIES`."""


class CompBench:
    """T2I-CompBench++: 2,400 prompts in eight categories of composition.

    It needs T2I-CompBench's prompt files, and judges for the categories that are evaluated: a questioner
    (attributes), a detector (relations, numbers), a depth judge (3D relations), a scorer (actions). The other judges
    may be left out. The label names the judges; the official detector, UniDet, is named only where its results are
    imported.
    chunks: a spaCy model, or a file of noun chunks and tokens, see `thinkdraw.data.structure.noun_chunks`.
    asker: reads prompts in place of upstream's rules. batch: pictures judged at once.
    """

    name = "compbench"
    folder = "t2i_compbench"
    prompt_file = ""
    num_prompts = 2400
    official_sha256: Sequence[str] = OFFICIAL_SHA256
    roles: Mapping[str, str] = {"questioner": "blip-vqa", "detector": "owlv2", "depth": "depth", "scorer": "clip"}
    pictures_per_prompt = 10

    def __init__(
        self, questioner: Questioner | None = None, detector: Detector | None = None, depth: DepthJudge | None = None,
        scorer: Scorer | None = None, chunks: Path | str = OFFICIAL_MODEL, asker: Asker | None = None, batch: int = 16,
    ):  # fmt: skip
        self.judges = {"questioner": questioner, "detector": detector, "depth": depth, "scorer": scorer}
        self.chunks, self.asker, self.batch = chunks, asker, batch
        self._judge = CompBenchJudge(asker or WordAsker(), questioner, detector, depth, scorer)

    @property
    def label(self) -> str:
        names = [judge_name(judge) for judge in self.judges.values() if judge is not None]
        return f"{self.name}[{'+'.join(names)}]"

    def prompts(self, path: Path) -> list[Prompt]:
        """Read the prompts, and the word lists beside them.

        Numeracy and complex prompts need these lists.
        """
        prompts = read_compbench(path)
        _check_unique(path, prompts)
        self._judge.asker = self.asker or open_asker(path if path.is_dir() else path.parent, self.chunks)
        return prompts

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raise UserError also where noun chunks or a list of words are missing."""
        self._judge.check(prompts)

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        rows: dict[tuple[int, int], Row] = {}
        for keys, pictures in batches_by_size(sets, self.batch):
            for (i, k), verdict in zip(keys, self._judge(pictures, [sets[i].prompt for i, _ in keys]), strict=True):
                rows[i, k] = _row(sets[i], k, verdict)
        return [rows[key] for key in sorted(rows)]

    def verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        return verdicts_by_prompt(rows)

    def aggregate(self, rows: Sequence[Row]) -> Report:
        return aggregate(rows, self.label)

    def official_pictures(self, folder: Path, prompts: Sequence[Prompt], samples: int) -> Layout:
        return compbench_files.find_pictures(folder, prompts, self.pictures_per_prompt)

    def export_official(self, folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
        compbench_files.write_samples(folder, prompts, pictures)

    def import_official(self, file: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
        if prompts is None:
            raise UserError(
                f"{file} numbers pictures and names no prompts. Give the prompts that were drawn: prompts=PATH."
            )
        return compbench_files.read_results(file, prompts)

    def write_results(self, folder: Path, rows: Sequence[Row]) -> None:
        compbench_files.write_results(folder, rows, self.label)


def open_asker(folder: Path | str, chunks: Path | str = OFFICIAL_MODEL) -> WordAsker:
    """Make what reads T2I-CompBench's prompts.

    folder: of its prompt files, which also holds new_objects.txt and complex_*.txt.
    chunks: a spaCy model, or a file of noun chunks and tokens; opened when the first prompt needs it.
    """
    parser = cache(lambda: open_parser(chunks))

    @cache
    def parse(prompt: str) -> Parse:
        return parser()(prompt)

    folder = Path(folder)
    objects = folder / "new_objects.txt"
    return WordAsker(
        parse, read_objects(objects) if objects.is_file() else (), _listed(folder, "spatial"), _listed(folder, "action")
    )


def _listed(folder: Path, kind: str) -> set[str] | None:
    """Read the complex prompts of one kind, of training and evaluation.

    None where the folder has no such list.
    """
    files = [path for split in ("train", "val") if (path := folder / f"complex_{split}_{kind}.txt").is_file()]
    return {comparison_key(prompt.text) for path in files for prompt in read_text(path)} if files else None


def _check_unique(path: Path, prompts: Sequence[Prompt]) -> None:
    """Raise UserError unless file names can tell the prompts apart.

    A picture belongs to a category and a prompt; a file's name holds the prompt up to the first underscore.
    """
    known: set[tuple[str, str]] = set()
    for prompt in prompts:
        if "_" in prompt.text or "/" in prompt.text:
            raise UserError(
                f"{path}: prompt {prompt.text[:60]!r} has _ or /, which a picture's file name cannot hold. Reword it."
            )
        if (prompt.tag, prompt.text) in known:
            raise UserError(f"{path} has prompt {prompt.text[:60]!r} twice. Remove one.")
        known.add((prompt.tag, prompt.text))


def _row(pictures: PictureSet, k: int, verdict: CompBenchVerdict) -> Row:
    parts = {"parts": verdict.parts} if verdict.parts else {}
    return row_about(pictures, k, verdict.score, reason=verdict.reason, **parts, **verdict.raw)


def aggregate(rows: Sequence[Row], label: str, *, seed: int = 0) -> Report:
    """Make a column per category, the mean over its pictures.

    The overall, their mean, is not a number that T2I-CompBench reports.
    """
    verdicts = verdicts_by_prompt(rows)
    scores = per_task(verdicts, seed=seed)
    missing = [category for category in CATEGORIES if category not in scores]
    return Report(
        label=label,
        overall=task_mean_score(verdicts, seed=seed),
        columns={category: scores[category] for category in (*CATEGORIES, *scores) if category in scores},
        notes=[
            "the overall is the mean of the categories, which T2I-CompBench does not report"
            + (f"; here without {', '.join(missing)}" if missing else "")
        ],
    )
