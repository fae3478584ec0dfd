"""How a checkpoint draws: by its record, by a preset, or as Janus-Pro does.

A run records how it sampled in `drawing.json` of each checkpoint. Whatever draws with the checkpoint later takes its
sampling from there, and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from thinkdraw.errors import UserError
from thinkdraw.runtime.files import atomic_write_json
from thinkdraw.runtime.formats import read_json_object
from thinkdraw.types import Policy, Sampling, SamplingOverrides

RECORD = "drawing.json"
STARTED = "started.json"  # of a run folder; runs from before there were records have their sampling there


# Descriptions of the two settings by which everything that draws is told how.
DRAWING = (
    "Draw as a published family of checkpoints does: janus_pro, reasongen_r1 or t2i_r1. null draws as recorded with the "
    "checkpoint, or as janus_pro where nothing is."
)
OVERRIDES = (
    "What to change of how the checkpoint was trained to draw; keys may be written without `sampling.`: thought=off."
)


@dataclass(frozen=True)
class Preset:
    """How a published family of checkpoints draws. source: where that is said."""

    sampling: Sampling
    source: str


# T2I-R1's own instruction in other words. Theirs is a file of its repository; give it as `thought_instruction`.
VISUALISE = (
    'An image is to be generated from this prompt: "{}". Describe briefly and precisely what it will show: every object, '
    "its visible attributes, and how the objects stand to each other. Use at most 50 words, state only what the prompt says, "
    "and write the description alone, without an explanation."
)
PRESETS: Mapping[str, Preset] = {
    "janus_pro": Preset(
        Sampling(thought="off", guidance_scale=5.0),
        "Janus-Pro's own script: no thought, guidance 5, temperature 1 (arXiv 2501.17811)",
    ),
    "reasongen_r1": Preset(
        Sampling(
            thought="inline", max_thought_tokens=448, guidance_scale=5.0,
            prompt_form="A photo of {}. Output a richly detailed prompt: ",
        ),
        "ReasonGen-R1's evaluation: thoughts of up to 448 tokens, guidance 5 (arXiv 2505.24875)",
    ),
    "t2i_r1": Preset(
        Sampling(
            thought="rewrite", max_thought_tokens=256, guidance_scale=5.0, thought_instruction=VISUALISE,
            thought_system_prompt="You are a helpful assistant that receives an image prompt and generate a visualization of "
            "the prompt.",
        ),
        "T2I-R1: a description in a context of its own, guidance 5; its instruction in other words (arXiv 2505.00703)",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """How to draw, and why so.

    source: where the sampling comes from. changed: settings that the user changed.
    """

    sampling: Sampling
    source: str
    changed: tuple[str, ...] = ()

    def line(self) -> str:
        """Say it in one line, for the beginning of an output."""
        by_you = f"; {', '.join(self.changed)} by you" if self.changed else ""
        return f"draws with {describe(self.sampling)} ({self.source}{by_you})"


def usual_drawing(policy: Policy) -> Sampling:
    """Return how a policy draws unless told otherwise."""
    return policy.drawing or PRESETS["janus_pro"].sampling


def choose_drawing(
    policy: Policy, overrides: SamplingOverrides, preset: str | None = None, *, of_several: bool = False
) -> Drawing:
    """Choose how a policy draws: as recorded or by preset, with the user's changes.

    of_several: the changes are for policies of several thought formats, and some may have nothing to do with this one.
    Raises UserError for an unknown preset, and for a change that the script cannot follow.
    """
    if preset is not None and preset not in PRESETS:
        raise UserError(f"drawing={preset}: there are {', '.join(PRESETS)}. Or set sampling.thought and the like.")
    if preset is not None:
        sampling, source = PRESETS[preset].sampling, f"preset {preset}"
    elif policy.drawing is not None:
        sampling, source = policy.drawing, "as recorded with the checkpoint"
    else:
        sampling = PRESETS["janus_pro"].sampling
        source = (
            f"nothing is recorded with the checkpoint, so as Janus-Pro does; drawing={'|'.join(PRESETS)} changes it"
        )
    changes = overrides.model_dump(exclude_none=True)
    if of_several and changes.get("thought", sampling.thought) == "off":
        changes.pop("max_thought_tokens", None)
    return Drawing(with_overrides(sampling, changes), source, tuple(changes))


def with_overrides(sampling: Sampling, changes: Mapping[str, object]) -> Sampling:
    """Change some settings.

    Raises UserError for one that the thought format cannot follow.
    """
    thought = changes.get("thought", sampling.thought)
    before = sampling.model_dump()
    if thought != "rewrite":  # an instruction needs a context of its own
        before = {key: value for key, value in before.items() if not key.startswith("thought_")}
    if thought == "off" and "max_thought_tokens" in changes:
        raise UserError(
            "max_thought_tokens has nothing to limit with thought=off. Leave it out, or draw with thought=inline or rewrite."
        )
    values = {key: None if value == "none" else value for key, value in changes.items()}
    if values.get("prompt_form") == "{}":
        values["prompt_form"] = None
    try:
        return Sampling.model_validate(before | values)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(["sampling", *map(str, problem["loc"])])
        raise UserError(f"{key}: {problem['msg'].removeprefix('Value error, ')}") from error


def describe(sampling: Sampling) -> str:
    """Write the settings that are not usual as key=value."""
    usual = Sampling()
    always = (
        ("thought", "guidance_scale")
        if sampling.thought == "off"
        else ("thought", "max_thought_tokens", "guidance_scale")
    )
    shown = [
        key for key in type(sampling).model_fields if key in always or getattr(sampling, key) != getattr(usual, key)
    ]
    return ", ".join(
        f"{key}={_short(getattr(sampling, key))}" for key in shown if key in always or key != "max_thought_tokens"
    )


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) and " " in value else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…{text[-1]}"


def write_record(folder: Path | str, sampling: Sampling) -> None:
    """Record with a checkpoint how it draws."""
    atomic_write_json(Path(folder) / RECORD, sampling.model_copy(update={"greedy": False}).model_dump(mode="json"))


def read_record(path: str | None, adapter: str | None = None) -> Sampling | None:
    """Read how a checkpoint draws; None where nothing is recorded.

    path: a folder, or a model id of the Hugging Face hub. adapter: a folder of adapters, whose record comes first.
    Raises UserError for a damaged record.
    """
    for folder in [Path(adapter), Path(adapter).parent] if adapter else []:
        if (folder / RECORD).is_file():
            return _read(folder / RECORD)
    if path is None:
        return None
    if not Path(path).is_dir():
        file = _file_of_hub(path)
        return None if file is None else _read(file)
    if (Path(path) / RECORD).is_file():
        return _read(Path(path) / RECORD)
    started = Path(path).parent.parent / STARTED
    if Path(path).parent.name == "checkpoints" and started.is_file():
        return Sampling.model_validate(
            read_json_object(started, "Restore it, or give sampling.… yourself.")["sampling"]
        )
    return None


def _read(file: Path) -> Sampling:
    way_out = "Remove it to draw without a record, or restore it."
    try:
        return Sampling.model_validate(read_json_object(file, way_out))
    except ValidationError as error:
        raise UserError(f"{file}: {error.errors()[0]['msg']}. {way_out}") from error


def _file_of_hub(name: str) -> Path | None:
    """Fetch the record of a model id, if there is one.

    Whatever else goes wrong is said when the weights are loaded.
    """
    from transformers.utils.hub import cached_file

    file = cached_file(
        name, RECORD, _raise_exceptions_for_gated_repo=False, _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )  # fmt: skip
    return None if file is None else Path(file)
