"""Make training data of a verifier: sampled pictures, labelled by a judge.

    thinkdraw corpus write lab_verifier_data

Pictures are finished and unfinished ones. Sampling and judging fill a rollout store, and a run that was stopped goes on with
it. The labels follow from the store alone.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import Field
from torch import Tensor

from thinkdraw.config import StrictModel, save_config
from thinkdraw.corpus.filters.labels import Balance, balance_labels, clear_label, right_labels
from thinkdraw.data.prompt_files import row_of
from thinkdraw.errors import UserError
from thinkdraw.images import to_png
from thinkdraw.recipes import sample as sampling
from thinkdraw.recipes.sample import SampleConfig
from thinkdraw.recipes.score import StoreDecoder
from thinkdraw.rollouts import RolloutStore
from thinkdraw.runtime.files import atomic_directory, atomic_write_text, only_writer_of_out
from thinkdraw.types import Policy, Prompt

SCHEMA = pa.schema(
    [
        ("image", pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        ("prompt", pa.string()),
        ("task", pa.string()),  # orm: is it right? clarity: can it be judged yet? potential: will it become right?
        ("label", pa.bool_()),
        ("fraction", pa.float32()),  # how much of the picture's tokens is drawn
        ("score", pa.float32()),  # the judge's score of the finished picture
        ("thought", pa.string()),
        ("structure", pa.string()),
        ("row", pa.int64()),  # in the rollout store
    ],
    metadata={
        b"huggingface": json.dumps(
            {
                "info": {
                    "features": {
                        "image": {"_type": "Image"},
                        **{
                            name: {"dtype": "string", "_type": "Value"}
                            for name in ("prompt", "task", "thought", "structure")
                        },
                        **{name: {"dtype": "float32", "_type": "Value"} for name in ("fraction", "score")},
                        "label": {"dtype": "bool", "_type": "Value"},
                        "row": {"dtype": "int64", "_type": "Value"},
                    }
                }
            }
        ).encode()
    },
)


BATCH = 16
"""Rollouts whose pictures are in memory at once."""


class VerifierDataConfig(StrictModel):
    """Settings of a verifier's training data."""

    recipe: Literal["verifier_data"] = Field(
        default="verifier_data", description="Names the recipe that this configuration is for; always `verifier_data`."
    )
    out: Path = Field(
        default=Path("runs/verifier_data"), description="Folder of the labelled pictures: parquet shards and a card."
    )
    sample: SampleConfig = Field(
        default=SampleConfig(out=Path("runs/verifier_store"), rewards=["lab-detector"]),
        description="How the pictures are sampled and judged: the settings of a rollout store, which a stopped "
        "run goes on with.",
    )
    judge: str = Field(
        default="lab-detector", description="Judge whose scores become the labels; it must be one of sample.rewards."
    )
    min_yes: float = Field(
        default=0.999,
        description="Least score of a finished picture that is labelled yes; anything lower is labelled no.",
    )
    fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.25, 0.5, 0.75),
        description="Shares of the image tokens that are drawn in the unfinished pictures, one picture for each.",
    )
    clear_above: float = Field(
        default=11 / 18,
        ge=0,
        le=1,
        description="An unfinished picture with more than this share drawn is labelled clear enough to judge "
        "(PARM: 11 of 18 steps, arXiv 2501.13926).",
    )
    unclear_below: float = Field(
        default=10 / 18,
        ge=0,
        le=1,
        description="An unfinished picture with less than this share drawn is labelled not clear; between both "
        "bounds it gets no label (PARM: 10 of 18 steps).",
    )
    balance: Balance = Field(
        default="prompt",
        description="As many yes as no labels: within each prompt, so that the prompt alone says nothing, or over all.",
    )
    seed: int = Field(default=0, ge=0, description="Seed by which rows of the more frequent label are chosen to stay.")
    licence: str = Field(default="unknown", description="Licence that the card names: an identifier such as cc-by-4.0.")
    rows_per_shard: int = Field(default=2000, ge=1, description="Labelled pictures in each parquet file.")


@dataclass(frozen=True)
class LabelRow:
    """A row to write: a rollout, how much of its picture is drawn, and a task's label.

    row: of the rollout store. fraction: of the picture's tokens.
    """

    row: int
    task: str
    fraction: float
    label: bool


@only_writer_of_out
def run(config: VerifierDataConfig) -> Path:
    """Sample, judge, label and write; return the folder.

    Raises UserError, also if balancing leaves nothing.
    """
    rewards = config.sample.rewards
    # A reward at a dotted path has a name of its own, which is not known before it is opened.
    if config.judge not in rewards and not any(":" in name for name in rewards):
        raise UserError(f"judge={config.judge} is not among sample.rewards={rewards}. Add it there.")
    store = RolloutStore.open(sampling.run(config.sample))
    scores = store.scores(config.judge).tolist()
    groups = [group for _, footer in store.footers() for group in _groups(footer)]
    rows = choose(config, scores, groups)
    if not rows:
        raise UserError(
            f"{len(scores)} pictures give no balanced labels: each prompt's pictures are all right, all wrong or without "
            "verdict. Sample more per prompt, or use balance=overall."
        )
    by_row: dict[int, list[LabelRow]] = {}
    for label_row in rows:
        by_row.setdefault(label_row.row, []).append(label_row)
    if (config.out / "data").exists() and not (config.out / "config.yaml").exists():
        raise UserError(f"{config.out} holds data that this recipe did not write. Choose another out=.")
    save_config(config, config.out / "config.yaml")
    with atomic_directory(config.out / "data") as folder:
        _write(folder, _parquet_rows(store, config, by_row, scores), len(rows), config.rows_per_shard)
    atomic_write_text(config.out / "README.md", _card(config, rows, scores))
    return config.out


def choose(config: VerifierDataConfig, scores: list[float], groups: list[int]) -> list[LabelRow]:
    """Choose the rows to write: balanced task by task, in the store's order."""
    right = right_labels(scores, config.min_yes)
    chosen = [
        LabelRow(row, "orm", 1.0, bool(right[row]))
        for row in balance_labels(right, groups, config.balance, config.seed)
    ]
    partials = [(row, fraction) for row in range(len(scores)) for fraction in config.fractions]
    partial_groups = [groups[row] for row, _ in partials]
    clear = [clear_label(fraction, config.clear_above, config.unclear_below) for _, fraction in partials]
    # Only of a picture that is clear enough to judge can one say whether it will become right.
    potential = [right[row] if is_clear else None for (row, _), is_clear in zip(partials, clear)]
    for number, (task, labels) in enumerate((("clarity", clear), ("potential", potential)), start=1):
        balanced_indices = balance_labels(labels, partial_groups, config.balance, config.seed + number)
        chosen += [LabelRow(partials[i][0], task, partials[i][1], bool(labels[i])) for i in balanced_indices]
    return sorted(chosen, key=lambda label_row: (label_row.row, label_row.task, label_row.fraction))


def _groups(footer: Any) -> list[int]:
    return [footer.first_group + i // footer.group_size for i in range(footer.num_rows)]


def _parquet_rows(
    store: RolloutStore, config: VerifierDataConfig, by_row: dict[int, list[LabelRow]], scores: list[float]
) -> Iterator[dict[str, Any]]:
    decoder = StoreDecoder(store, None, config.sample.device)
    for shard in store.shards():
        mine = [row for row in shard.row_ids if row in by_row]
        if not mine:
            continue
        policy, rollouts = decoder.policy(shard), shard.rollouts().select([row - shard.row_ids[0] for row in mine])
        codes = rollouts.image_tokens()
        for begin in range(0, len(mine), BATCH):
            batch = mine[begin : begin + BATCH]
            pngs = _pngs(policy, codes[begin : begin + BATCH], [{a.fraction for a in by_row[row]} for row in batch])
            for index, row in enumerate(batch):
                prompt = rollouts.prompts[begin + index]
                for label_row in by_row[row]:
                    yield {
                        "image": {"bytes": pngs[index, label_row.fraction], "path": None},
                        "prompt": prompt.text, "task": label_row.task, "label": label_row.label,
                        "fraction": label_row.fraction, "score": scores[row], "structure": _structure(prompt), "row": row,
                        "thought": rollouts.thoughts[begin + index] if rollouts.thoughts else "",
                    }  # fmt: skip


def _pngs(policy: Policy, codes: Tensor, fractions: list[set[float]]) -> dict[tuple[int, float], bytes]:
    """Decode each picture up to the fractions it needs: (index, fraction) → PNG file.

    Pictures of one fraction are decoded together, and each only once, however many tasks use it.
    """
    pngs = {}
    for fraction in sorted(set().union(*fractions)):
        indices = [index for index, needed in enumerate(fractions) if fraction in needed]
        pictures = policy.decode_tokens(codes[indices, : round(fraction * codes.shape[1])]).cpu()
        pngs |= {(index, fraction): to_png(picture) for index, picture in zip(indices, pictures, strict=True)}
    return pngs


def _structure(prompt: Prompt) -> str:
    structure = {k: v for k, v in row_of(prompt).items() if k not in ("id", "prompt")}
    return json.dumps(structure) if structure else ""


def _write(folder: Path, rows: Iterator[dict[str, Any]], count: int, rows_per_shard: int) -> None:
    total = -(-count // rows_per_shard)
    for index in range(total):
        size = min(rows_per_shard, count - index * rows_per_shard)
        shard = [next(rows) for _ in range(size)]
        name = f"train-{index:05d}-of-{total:05d}.parquet"
        pq.write_table(
            pa.Table.from_pylist(shard, schema=SCHEMA), folder / name, compression="zstd", write_page_checksum=True
        )


def _card(config: VerifierDataConfig, rows: list[LabelRow], scores: list[float]) -> str:
    head = {
        "license": config.licence,
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    counts = Counter((label_row.task, label_row.label) for label_row in rows)
    lines = [f"| {task} | {counts[task, True]} | {counts[task, False]} |" for task in ("orm", "clarity", "potential")]
    silent = sum(score != score for score in scores)
    settings = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return f"""---
{yaml.safe_dump(head, sort_keys=False)}---
# Labels for a verifier

{len(rows)} rows from {len(scores)} pictures that `{config.sample.policy}` drew and `{config.judge}` judged, {silent} of them without a
verdict. Balanced by {config.balance}.

| task | yes | no |
|---|---|---|
{chr(10).join(lines)}

`orm`: the finished picture shows what the prompt asks for (a score of {config.min_yes:g} or more). `clarity`: so much of it is drawn
that it can be judged. `potential`: an unfinished, clear picture becomes one that is right. After PARM (arXiv 2501.13926).

```yaml
{settings}```
"""
