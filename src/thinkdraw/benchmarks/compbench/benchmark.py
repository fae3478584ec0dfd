"""T2I-CompBench++: eight categories of 300 prompts (Huang et al. 2023, arXiv 2307.06350, and TPAMI 2025).

What each category asks and how it scores says `thinkdraw.benchmarks.compbench.judge`; the official files are read and written by
`compbench_files`.
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
from thinkdraw.benchmarks.compbench.ask import CATEGORIES, Asker, Asks
from thinkdraw.benchmarks.compbench.complex import comparable
from thinkdraw.benchmarks.compbench.judge import CompBenchJudge, CompBenchVerdict
from thinkdraw.benchmarks.compbench.scales import Depth
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
"""Of all prompts, and of the file of each of `CATEGORIES`."""


class CompBench:
    """T2I-CompBench++'s rules over any judges; its own detector, UniDet, is named only where its results are imported.

    Judges that no category needs may be left out. chunks: a spaCy model, or a file of noun chunks and tokens, see
    `thinkdraw.data.structure.noun_chunks`. asker: reads prompts in place of upstream's rules. batch: pictures judged at once.
    """

    name = "compbench"
    folder = "t2i_compbench"
    prompt_file = ""
    num_prompts = 2400
    official_sha256: Sequence[str] = OFFICIAL_SHA256
    roles: Mapping[str, str] = {"questioner": "blip-vqa", "detector": "owlv2", "depth": "depth", "scorer": "clip"}
    pictures_per_prompt = 10

    def __init__(
        self, questioner: Questioner | None = None, detector: Detector | None = None, depth: Depth | None = None,
        scorer: Scorer | None = None, chunks: Path | str = OFFICIAL_MODEL, asker: Asks | None = None, batch: int = 16,
    ):  # fmt: skip
        self.judges = {"questioner": questioner, "detector": detector, "depth": depth, "scorer": scorer}
        self.chunks, self.asker, self.batch = chunks, asker, batch
        self._judge = CompBenchJudge(asker or Asker(), questioner, detector, depth, scorer)

    @property
    def label(self) -> str:
        names = [judge_name(judge) for judge in self.judges.values() if judge is not None]
        return f"{self.name}[{'+'.join(names)}]"

    def prompts(self, path: Path) -> list[Prompt]:
        """Also finds, beside the prompts, the lists of words and prompts that numeracy and complex need."""
        prompts = read_compbench(path)
        _check_told_apart(path, prompts)
        self._judge.asker = self.asker or open_asker(path if path.is_dir() else path.parent, self.chunks)
        return prompts

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        """Raises UserError as well where noun chunks, or a list of words, are missing."""
        self._judge.check(prompts)

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        rows: dict[tuple[int, int], Row] = {}
        for places, pictures in batches_by_size(sets, self.batch):
            for (i, k), verdict in zip(places, self._judge(pictures, [sets[i].prompt for i, _ in places]), strict=True):
                rows[i, k] = _row(sets[i], k, verdict)
        return [rows[place] for place in sorted(rows)]

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
                f"{file} numbers pictures and names no prompts. Give the prompts that were drawn: --prompts PATH."
            )
        return compbench_files.read_results(file, prompts)

    def write_results(self, folder: Path, rows: Sequence[Row]) -> None:
        compbench_files.write_results(folder, rows, self.label)


def open_asker(folder: Path | str, chunks: Path | str = OFFICIAL_MODEL) -> Asker:
    """What reads T2I-CompBench's prompts. folder: of its prompt files, which hold new_objects.txt and complex_*.txt too.

    chunks: a spaCy model, or a file of noun chunks and tokens; opened when the first prompt needs it.
    """
    parser = cache(lambda: open_parser(chunks))

    @cache
    def parse(prompt: str) -> Parse:
        return parser()(prompt)

    folder = Path(folder)
    objects = folder / "new_objects.txt"
    return Asker(
        parse, read_objects(objects) if objects.is_file() else (), _listed(folder, "spatial"), _listed(folder, "action")
    )


def _listed(folder: Path, kind: str) -> set[str] | None:
    """The complex prompts, of training and evaluation, that are of one kind; None where the folder has no such list."""
    files = [path for split in ("train", "val") if (path := folder / f"complex_{split}_{kind}.txt").is_file()]
    return {comparable(prompt.text) for path in files for prompt in read_text(path)} if files else None


def _check_told_apart(path: Path, prompts: Sequence[Prompt]) -> None:
    """Pictures are known by category and prompt, which stands in the file's name up to the first underscore."""
    seen: set[tuple[str, str]] = set()
    for prompt in prompts:
        if "_" in prompt.text or "/" in prompt.text:
            raise UserError(
                f"{path}: prompt {prompt.text[:60]!r} has _ or /, which a picture's file name cannot hold. Reword it."
            )
        if (prompt.tag, prompt.text) in seen:
            raise UserError(f"{path}: prompt {prompt.text[:60]!r} stands there twice. Remove one.")
        seen.add((prompt.tag, prompt.text))


def _row(pictures: PictureSet, k: int, verdict: CompBenchVerdict) -> Row:
    parts = {"parts": verdict.parts} if verdict.parts else {}
    return row_about(pictures, k, verdict.score, reason=verdict.reason, **parts, **verdict.raw)


def aggregate(rows: Sequence[Row], label: str, *, seed: int = 0) -> Report:
    """A column per category, the mean over its pictures. The overall, their mean, is not a number of T2I-CompBench's."""
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
