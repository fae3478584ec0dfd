"""Prompts of the user's own as a benchmark: any reward judges the pictures.

The overall is the mean over prompts, each with the mean of its pictures. Pictures of one text count as one prompt,
also where a file or a folder names that text several times.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from thinkdraw.benchmarks.base import Layout, PictureSet, Report, Row, null_for_nan, number_or_nan, row_about
from thinkdraw.benchmarks.picture_files import LayoutBuilder
from thinkdraw.benchmarks.statistics import PromptVerdicts, per_task, prompt_mean_score
from thinkdraw.data.prompt_files import read_prompts
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.picture_reader import SUFFIXES
from thinkdraw.rewards.judging import finished_rollouts, refuse_unfit_prompts
from thinkdraw.rewards.opening import RewardSettings, open_reward
from thinkdraw.rewards.revision import revision_of
from thinkdraw.runtime.files import atomic_write_bytes
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Prompt, Reward, Verdicts

ALL = "prompts"  # the only task: prompts count alike, whatever their tags
EXPECTED = "ID.png or ID_K.png by a prompt's id, or 00000_K.png by its place, K from 0"


class OwnPrompts:
    """Prompts of your own, judged by any reward.

    reward: a name of `thinkdraw list rewards`, or a mapping of its `name` and `settings`.
    prompts: file or folder of the prompts, in any form in which training reads them; the evaluation's own key
    `prompts` says the same.
    The score is the mean of the prompts' mean rewards, in the reward's own scale. A prompt's tag is a column.
    """

    name = "own"
    folder = ""
    prompt_file = ""
    num_prompts = 0
    official_sha256: Sequence[str] = ()
    roles: Mapping[str, str] = {}
    pictures_per_prompt = 4

    def __init__(self, reward: str | JsonMapping | Reward | None = None, prompts: str | None = None):
        self.named: RewardSettings | None = None
        self._reward: Reward | None = None
        if isinstance(reward, str | Mapping):
            self.named = RewardSettings.model_validate(reward)
        else:
            self._reward = reward
        self.prompts_file = Path(prompts) if prompts is not None else None
        # (prompt index, sample) → the row of drawn.jsonl, for rewards that read thoughts.
        self._drawn: dict[tuple[int, int], Row] = {}

    @property
    def reward(self) -> Reward:
        """The reward, opened when it is needed first. Raises UserError."""
        if self._reward is None:
            if self.named is None:
                raise UserError("own prompts need a reward that judges their pictures: reward=NAME.")
            self._reward = open_reward(self.named.name, **self.named.settings)
        return self._reward

    @property
    def label(self) -> str:
        named = _names(self.named) if self.named else [self._reward.name] if self._reward else []
        return f"{self.name}[{'+'.join(named)}]"

    def judge_facts(self) -> JsonObject:
        """Describe the reward for a summary: name, and what its verdicts depend on."""
        settings = self.named.settings if self.named else {}
        return {"reward": {"name": self.reward.name, "revision": revision_of(self.reward, settings)}}

    def prompts(self, path: Path) -> list[Prompt]:
        return read_prompts(path)

    def check_prompts(self, prompts: Sequence[Prompt]) -> None:
        refuse_unfit_prompts(self.reward, prompts)

    def read_drawn(self, rows: Sequence[Row]) -> None:
        self._drawn = {(row["prompt_index"], row["sample"]): row for row in rows}

    def judge(self, sets: Sequence[PictureSet]) -> list[Row]:
        rows: dict[tuple[int, int], Row] = {}
        for keys, group_size in _groups(sets):
            drawn = [self._drawn.get((sets[i].index, sets[i].samples[k])) for i, k in keys]
            rollouts = finished_rollouts(
                [sets[i].prompt for i, _ in keys],
                torch.from_numpy(np.stack([sets[i].pictures[k] for i, k in keys])),
                [row["thought"] if row else "" for row in drawn]
                if any(row and row["thought"] for row in drawn)
                else (),
                [bool(row and row.get("thought_cut")) for row in drawn],
                group_size=group_size,
            )
            verdicts = self.reward(rollouts)
            rows |= {(i, k): self._row(sets[i], k, verdicts, at) for at, (i, k) in enumerate(keys)}
        return [rows[key] for key in sorted(rows)]

    def _row(self, pictures: PictureSet, k: int, verdicts: Verdicts, at: int) -> Row:
        value = float(verdicts.rewards[at])
        raw: JsonObject = {"parts": {name: float(values[at]) for name, values in verdicts.parts.items()}}
        if not bool(verdicts.applies[at]):
            raw |= {"reason": f"{self.reward.name} does not apply to this picture", "left_out": True}
        elif np.isnan(value):
            raw["reason"] = _reason(self.reward.name, verdicts.notes)
        return row_about(pictures, k, value, **raw)

    def verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        return _by_text(rows, lambda row: ALL)

    def column_verdicts(self, rows: Sequence[Row]) -> list[PromptVerdicts]:
        """Return the headline number per prompt, with tags as columns."""
        return _by_text(rows, lambda row: str(row["tag"] or ALL))

    def aggregate(self, rows: Sequence[Row]) -> Report:
        by_tag = self.column_verdicts(rows)
        names = list(dict.fromkeys(name for row in rows for name in row.get("parts", ())))
        parts = {name: _mean_of_part(rows, name) for name in names}
        return Report(
            label=self.label,
            overall=prompt_mean_score(self.verdicts(rows)),
            columns=per_task(by_tag) if len({row.task for row in by_tag}) > 1 else {},
            extra={f"part {name}": value for name, value in parts.items()},
        )

    def official_pictures(self, folder: Path, prompts: Sequence[Prompt], samples: int) -> Layout:
        layout = LayoutBuilder(EXPECTED)
        place = {prompt.id: index for index, prompt in enumerate(prompts)}
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in SUFFIXES:
                continue
            stem, _, number = path.stem.rpartition("_")
            if path.stem in place:
                layout.add(place[path.stem], 0, path)
            elif number.isdigit() and stem in place:
                layout.add(place[stem], int(number), path)
            elif number.isdigit() and re.fullmatch(r"\d{5}", stem) and int(stem) < len(prompts):
                layout.add(int(stem), int(number), path)
            else:
                layout.skip(path)
        return Layout(layout.files, layout.expected, layout.left_out, layout.notes)

    def export_official(self, folder: Path, prompts: Sequence[Prompt], pictures: Iterable[PictureSet]) -> None:
        for picture_set in pictures:
            for sample, picture in zip(picture_set.samples, picture_set.pictures, strict=True):
                atomic_write_bytes(folder / f"{picture_set.index:05d}_{sample}.png", to_png(picture))

    def import_official(self, file: Path, prompts: Sequence[Prompt] | None = None) -> list[Row]:
        raise UserError(
            f"own prompts have no original scorer whose {file.name} could be read. Judge the pictures: images=FOLDER reward=NAME."
        )


def _names(named: RewardSettings) -> list[str]:
    """Name a reward and the judges among its settings, so that labels tell them apart."""
    specs = [spec.get("name") if isinstance(spec, Mapping) else spec for spec in named.settings.values()]
    return [named.name, *(spec for spec in specs if isinstance(spec, str) and re.fullmatch(r"[\w.:/-]{1,60}", spec))]


def _groups(sets: Sequence[PictureSet]) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """Yield (set, index in it) of pictures to judge together, and the size of a group.

    Pictures of one call have one size in pixels. The pictures of a prompt are a group, unless they differ in size.
    """
    together: dict[tuple[tuple[int, ...], int], list[tuple[int, int]]] = {}
    for i, pictures in enumerate(sets):
        shapes = {picture.shape for picture in pictures.pictures}
        group_size = len(pictures.pictures) if len(shapes) == 1 else 1
        for k, picture in enumerate(pictures.pictures):
            together.setdefault((picture.shape, group_size), []).append((i, k))
    for (_, group_size), keys in together.items():
        yield keys, group_size


def _reason(name: str, notes: Counter[str]) -> str:
    why = ", ".join(reason for reason, _ in notes.most_common(2))
    return f"{name} gave no verdict{f' ({why})' if why else ''}"


def _by_text(rows: Sequence[Row], task_of: Callable[[Row], str]) -> list[PromptVerdicts]:
    """Collect the verdicts on each text's pictures, in order; None becomes NaN."""
    of_text: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row["prompt_index"], row["sample"])):
        of_text.setdefault((task_of(row), row["prompt"]), []).append(row)
    return [
        PromptVerdicts(task, [number_or_nan(row["verdict"]) for row in same], text)
        for (task, text), same in of_text.items()
    ]


def _mean_of_part(rows: Sequence[Row], name: str) -> float | None:
    values = [value for row in rows if (value := row.get("parts", {}).get(name)) is not None]
    return null_for_nan(float(np.mean(values))) if values else None
