"""Writes a run's model for others, in the layout they use, with a model card."""

import re
import shutil
from pathlib import Path
from typing import Literal

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError
from thinkdraw.policies import ADAPTER_FOLDER, LAYOUTS
from thinkdraw.policies.drawing import read_record, write_record
from thinkdraw.policies.opening import load_trained, run_checkpoint
from thinkdraw.publishing.card import CARD, MADE_BY, card
from thinkdraw.publishing.hub import push
from thinkdraw.runtime import checkpoint
from thinkdraw.runtime.files import atomic_directory, atomic_write_text
from thinkdraw.runtime.formats import read_json_object
from thinkdraw.runtime.registry import find

TRAINING_ONLY = (checkpoint.MARKER, "trainer_state.json", "trainer_state.safetensors")


class ExportConfig(StrictModel):
    """What leaves a run, in which layout, and where to."""

    run: Path = Field(description="The run folder whose model is exported.")
    to: Literal["hf", "deepseek", "peft"] = Field(
        default="hf",
        description="Layout: hf is transformers' own; deepseek is `multi_modality`, for code built on DeepSeek's; "
        "peft is the adapters of a LoRA run alone.",
    )
    out: Path | None = Field(default=None, description="Folder to write; null is RUN/export_LAYOUT.")
    select: Literal["best", "last"] = Field(
        default="best", description="Which checkpoint: that of the best validation, or the last one."
    )
    evaluations: list[Path] = Field(
        default=[],
        description="Folders that `thinkdraw eval` wrote of this model; their scores and intervals go into the card.",
    )
    license: str | None = Field(
        default=None, description="Licence of the weights, as the hub names it; it has to fit the base's licence."
    )
    push: str | None = Field(
        default=None, description="Hugging Face repository, OWNER/NAME, to upload to; null uploads nothing."
    )
    private: bool = Field(default=True, description="Whether a repository that is made for `push` is private.")


def export(config: ExportConfig) -> Path:
    """Write the folder and return it; upload it where `push` names a repository.

    Raises UserError for a folder that is no run, for a layout its policy does not have, and if the hub refuses.
    """
    folder = _checkpoint(config)
    out = (config.out or config.run / f"export_{config.to}").resolve()
    _refuse_occupied(out)
    if config.push and not re.fullmatch(r"[\w.-]+/[\w.-]+", config.push):
        raise UserError(f"push={config.push}: not a repository of the hub. Write OWNER/NAME.")
    text = card(config.run, folder, config.to, config.evaluations, config.license, config.push or out.name)
    if config.to == "deepseek":
        # In the dtype of the files, so that not a bit changes.
        dtype = str(read_json_object(folder / "config.json", "").get("dtype", "float32"))
        policy = load_trained(folder, dtype={"bfloat16": "bf16"}.get(dtype, "fp32"))
        find("layout", LAYOUTS, config.to)(policy, out)
    else:
        source = folder / ADAPTER_FOLDER if config.to == "peft" else folder
        if not source.is_dir():
            raise UserError(
                f"export {config.run} to=peft: {folder.name} has no adapters; the run trained all weights. Use to=hf."
            )
        checkpoint.check_digests(folder)
        with atomic_directory(out) as written:
            for file in sorted(file for file in source.iterdir() if file.is_file() and file.name not in TRAINING_ONLY):
                shutil.copy2(file, written / file.name)
    if (drawing := read_record(str(folder))) is not None:
        write_record(out, drawing)
    atomic_write_text(out / CARD, text)
    if config.push:
        push(out, config.push, config.private)
    return out


def _refuse_occupied(out: Path) -> None:
    """Refuse a folder with files of others, which the export would replace."""
    if out.is_dir() and any(out.iterdir()):
        card_file = out / CARD
        if not card_file.is_file() or MADE_BY not in card_file.read_text(encoding="utf-8", errors="replace"):
            raise UserError(f"out={out} holds files that no export wrote, and would be replaced. Choose another out=.")


def _checkpoint(config: ExportConfig) -> Path:
    if not (config.run / "checkpoints").is_dir():
        raise UserError(
            f"export {config.run}: no run folder, for it has no checkpoints/. Give the folder that `train` wrote."
        )
    best = run_checkpoint(config.run, "best") if config.select == "best" else None
    folder = best or run_checkpoint(config.run, "last")
    assert folder is not None, "run_checkpoint raises where a run has none"
    return folder
