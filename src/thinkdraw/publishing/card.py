"""The model card: what was trained, how it draws, what it scores and cost."""

import html
import re
from collections.abc import Sequence
from pathlib import Path

import yaml

from thinkdraw.errors import UserError
from thinkdraw.policies.drawing import read_record
from thinkdraw.report.files import read_rows
from thinkdraw.runtime.checkpoint import checkpoint_step
from thinkdraw.runtime.endpoints import mask_secrets
from thinkdraw.runtime.formats import parse_yaml
from thinkdraw.runtime.formats.sealed import read_sealed
from thinkdraw.runtime.json_types import JsonMapping, JsonObject
from thinkdraw.types import Sampling

CARD = "README.md"
MADE_BY = "trained with thinkdraw"
# A setting whose value is a secret, and not the name of an environment variable that holds it.
_SECRET = re.compile(r"(api_?key|token|secret|password)$", re.IGNORECASE)
COSTS = {
    "pictures_sampled": "pictures sampled",
    "judge_calls": "judge calls",
    "sequences_trained": "rollouts trained on",
    "tokens_trained": "tokens trained on",
    "seconds": "seconds",
}


def card(run: Path, checkpoint: Path, layout: str, evaluations: Sequence[Path], license: str | None, name: str) -> str:
    """Write README.md with the front matter that the hub reads.

    It holds no date and no path of the machine: the same run has the same card.
    evaluations: folders of `thinkdraw eval`. name: of the model, OWNER/NAME on the hub.
    Raises UserError where the run or an evaluation cannot be read.
    """
    config = _shareable(_config(run))
    step = checkpoint_step(checkpoint.name) or 0
    row = _row_at(run, step)
    base = str(config.get("policy", "unknown"))
    head: JsonObject = {"library_name": "peft" if layout == "peft" else "transformers", "pipeline_tag": "text-to-image"}
    head |= {"license": license} if license else {}
    # A hub id links to the base; a folder of this machine says nothing to others.
    head |= {"base_model": base} if base.count("/") == 1 and not Path(base).exists() else {}
    head["tags"] = ["thinkdraw", "autoregressive-image-generation", str(config.get("recipe", "run"))]
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n# {html.escape(name)}\n",
        f"An image generator that thinks before it draws: **{html.escape(base)}**, {MADE_BY} "
        f"(recipe `{config.get('recipe')}`, step {step}).\n",
        _how_to_draw(config, read_record(str(checkpoint)), name, layout, base),
        _scores(evaluations, row),
        _costs(row),
        "## Configuration\n\n```yaml\n" + mask_secrets(yaml.safe_dump(config, sort_keys=False)) + "```\n",
    ]
    return "\n".join(part for part in parts if part)


def _how_to_draw(config: JsonMapping, record: Sampling | None, name: str, layout: str, base: str) -> str:
    sampling = record.model_dump(exclude={"greedy"}, exclude_none=True) if record else config.get("sampling") or {}
    names = ("thought", "guidance_scale", "temperature", "max_thought_tokens")
    chosen = {key: sampling[key] for key in (sampling if record else names) if key in sampling}
    if not chosen and "thought" in config:
        chosen = {"thought": config["thought"]}
    # With a record nothing has to be said: thinkdraw draws by it.
    said = [f"{key}={value}" for key, value in chosen.items() if key != "max_thought_tokens" and record is None]
    settings = " ".join(said)
    model = f"{base}+{name}" if layout == "peft" else name
    table = "\n".join(f"* `{key}`: {value}" for key, value in chosen.items())
    return (
        "## How it draws\n\nIt was trained to draw like this, and scores elsewhere may be lower:\n\n"
        f"{table or '* not recorded'}\n\n"
        f'```text\nthinkdraw generate {model} -p "…"{" " if settings else ""}{settings}\n```\n'
    )


def _scores(evaluations: Sequence[Path], row: JsonMapping) -> str:
    lines = ["## Scores\n"]
    if evaluations:
        lines += ["| benchmark | score | 95 % interval | prompts | pictures |", "|---|---|---|---|---|"]
        for folder in evaluations:
            way_out = "Give a folder that `thinkdraw eval` wrote, with its summary.json."
            summary = read_sealed(folder / "summary.json", f"evaluations: {way_out}")
            if "score" not in summary:
                raise UserError(f"evaluations: {folder / 'summary.json'} has no score. {way_out}")
            label = summary.get("label") or summary.get("benchmark") or folder.name
            values = [
                f"{summary[key]:.3f}" if summary.get(key) is not None else unknown
                for key, unknown in (("score", "no verdict"), ("low", "not known"), ("high", "not known"))
            ]
            counts = [str(summary.get(key, "")) for key in ("prompts", "pictures")]
            lines.append(f"| {label} | {values[0]} | [{values[1]}, {values[2]}] | {counts[0]} | {counts[1]} |")
        lines.append("\nIntervals are over prompts. They do not cover chance in training.")
    elif row.get("validation_score") is not None:
        lines.append(
            f"Validation score in training: {row['validation_score']:.3f}. It chose the checkpoint, so it is too high an "
            "estimate; no test set has been scored."
        )
    else:
        lines.append("Not measured.")
    return "\n".join(lines) + "\n"


def _costs(row: JsonMapping) -> str:
    lines = [f"* {label}: {row[key]:,.0f}" for key, label in COSTS.items() if row.get(key) is not None]
    return "## What it cost\n\n" + "\n".join(lines) + "\n" if lines else ""


def _config(run: Path) -> JsonObject:
    file = run / "config.yaml"
    if not file.is_file():
        raise UserError(f"{run} has no config.yaml. Give the folder that `train` wrote.")
    value = parse_yaml(file.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise UserError(f"{file} holds no settings. Give the folder that `train` wrote.")
    return value


def _row_at(run: Path, step: int) -> JsonObject:
    """Read the row of metrics.jsonl of a step, or the last one before it."""
    row: JsonObject = {}
    for read in read_rows(run / "metrics.jsonl", []):
        if read.get("step", 0) <= step:
            row = row | read
    return row


def _shareable(config: JsonMapping) -> JsonObject:
    """Copy the settings without where the run lay, paths of the machine, and secrets."""
    return {key: _cleaned(key, value) for key, value in config.items() if key != "out"}


def _cleaned(key: str, value: object) -> object:
    if isinstance(value, dict):
        return {name: _cleaned(str(name), item) for name, item in value.items()}
    if isinstance(value, list):
        return [_cleaned(key, item) for item in value]
    if isinstance(value, str) and _SECRET.search(key):
        return "***"
    is_path = isinstance(value, str) and (value.startswith(("/", "~")) or re.match(r"[A-Za-z]:\\", value))
    return re.split(r"[/\\]", str(value).rstrip("/\\"))[-1] if is_path else value
