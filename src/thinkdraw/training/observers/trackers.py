"""Trackers: mirrors of metrics.jsonl and some pictures, by accelerate's trackers.

metrics.jsonl stays the truth. A tracker that is missing or fails is named in one line, and the run goes on without it.
Each is started and fed by itself, since `Accelerator.log` would stop at the first that raises. The main process alone has
trackers.
"""

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

import numpy as np
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, MLflowTracker

from thinkdraw.config import dump_config
from thinkdraw.errors import UserError, printable
from thinkdraw.runtime.endpoints import mask_secrets
from thinkdraw.runtime.files import atomic_write_json
from thinkdraw.runtime.formats import parse_yaml, read_json_object
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.runtime.registry import find
from thinkdraw.training.settings import TrainSettings

MAX_FAILURES = 3  # in a row, after which a tracker is left out: each may cost the time of a request
MEMORY = "trackers.json"  # in the run folder: how the trackers know this run again
Warn = Callable[[str, str], None]  # (key, message)
Maker = Callable[..., GeneralTracker]  # a tracker's class


@dataclass(frozen=True)
class Picture:
    """A picture, (H, W, 3) uint8, with prompt, thought and reward as caption."""

    pixels: np.ndarray
    caption: str


class Trackers:
    """The trackers of a run, each guarded from the failures of the others."""

    def __init__(self, config: TrainSettings, is_main: bool, warn: Warn) -> None:
        """Find the trackers' classes. Raises UserError for one that cannot be imported."""
        self.config, self.warn = config, warn
        self._classes = {name: _class_of(name) for name in (config.log_with if is_main else ())}
        self._trackers: dict[str, GeneralTracker] = {}
        self._failures: dict[str, int] = {}

    def start(self, step: int) -> None:
        """Start every tracker that is installed, or go on with the tracker's own run.

        step: optimiser steps that the run has done.
        """
        if not self._classes:
            return
        file = self.config.out / MEMORY
        memory: JsonObject = {"id": secrets.token_hex(4)}
        try:
            memory |= read_json_object(file, "") if file.exists() else {}
        except UserError as error:
            self.warn("trackers", f"{error} The trackers begin anew.")
        for name, tracker_class in self._classes.items():
            if isinstance(tracker_class, str):
                self.warn(f"tracker {name}", tracker_class)
                continue
            try:
                tracker = self._made(name, tracker_class, memory, step)
                tracker.start()
                tracker.store_init_configuration(_flat_config(self.config))
                self._trackers[name] = tracker
                if isinstance(tracker, MLflowTracker):
                    memory["mlflow"] = tracker.active_run.info.run_id
            except (Exception, SystemExit) as error:
                self.warn(
                    f"tracker {name}", f"tracker {name} does not start ({_said(error)}): this run goes without it."
                )
        atomic_write_json(file, memory)

    def _made(self, name: str, tracker_class: Maker, memory: JsonObject, step: int) -> GeneralTracker:
        """Make a tracker; a run that goes on is the same run there, where it can be."""
        config, run_name = self.config, f"{self.config.out.name}-{memory['id']}"
        again: JsonObject = {
            "wandb": {"id": memory["id"], "name": config.out.name, "resume": "allow", "dir": str(config.out)},
            "trackio": {"name": run_name, "resume": "allow"},
            # Steps after the checkpoint that a run goes on from are drawn once.
            "tensorboard": {"purge_step": step + 1},
            "mlflow": {"run_name": config.out.name, "run_id": memory.get("mlflow")},
        }.get(name, {})
        arguments = {**again, **config.tracker_settings.get(name, {})}
        if getattr(tracker_class, "requires_logging_directory", False):
            where = (".", config.out / "tensorboard") if name == "tensorboard" else (config.tracker_project, config.out)
            return tracker_class(*where, **arguments)
        return tracker_class(config.tracker_project, **arguments)

    def log(self, row: Mapping[str, float | None], step: int) -> None:
        """Mirror the numbers of a row of metrics.jsonl."""
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and math.isfinite(v) and k != "step"}
        self._each(lambda name, tracker: tracker.log(numbers, step=step))

    def log_pictures(self, pictures: Sequence[Picture], step: int) -> None:
        """Mirror pictures with their captions, where the tracker takes pictures."""
        if pictures:
            self._each(lambda name, tracker: _log_pictures(name, tracker, pictures, step))

    def finish(self) -> None:
        """Close all trackers."""
        self._each(lambda name, tracker: tracker.finish())
        self._trackers = {}

    @property
    def is_empty(self) -> bool:
        return not self._trackers

    def _each(self, mirror: Callable[[str, GeneralTracker], object]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                mirror(name, tracker)
                self._failures[name] = 0
            except (Exception, SystemExit) as error:
                self._failures[name] = self._failures.get(name, 0) + 1
                self.warn(
                    f"tracker {name}",
                    f"tracker {name} failed ({_said(error)}): training goes on, metrics.jsonl has everything, and the tracker "
                    f"is left out after {MAX_FAILURES} failures in a row.",
                )
                if self._failures[name] == MAX_FAILURES:
                    del self._trackers[name]


def _class_of(name: str) -> Maker | str:
    """Return a tracker's class, or a line that says what is missing."""
    if ":" in name:
        return find("tracker", {}, name)
    if name not in LOGGER_TYPE_TO_CLASS:
        return (
            f"tracker {name}: this accelerate does not know it, and this run goes without it. Install accelerate>=1.11."
        )
    packages = ("tensorboard", "tensorboardX") if name == "tensorboard" else (name,)
    if not any(find_spec(package) for package in packages):
        return f"tracker {name} is not installed, and this run goes without it: pip install 'thinkdraw[{name}]'."
    return LOGGER_TYPE_TO_CLASS[name]


def _log_pictures(name: str, tracker: GeneralTracker, pictures: Sequence[Picture], step: int) -> None:
    captions = "\n\n".join(f"{i}. {picture.caption}" for i, picture in enumerate(pictures, start=1))
    if name == "wandb":
        wandb = import_module("wandb")
        tracker.log({"rollouts": [wandb.Image(p.pixels, caption=p.caption) for p in pictures]}, step=step)
    elif name == "trackio":
        trackio = import_module("trackio")
        images = {f"rollouts/{i}": trackio.Image(p.pixels, caption=p.caption) for i, p in enumerate(pictures, start=1)}
        tracker.log(images, step=step)
    elif name == "mlflow":
        mlflow = import_module("mlflow")
        for i, picture in enumerate(pictures, start=1):
            mlflow.log_image(picture.pixels, key=f"rollouts_{i}", step=step)
        mlflow.log_text(captions, f"rollouts/step_{step:06d}.txt")
    elif log_images := getattr(tracker, "log_images", None):
        # TensorBoard expects channels first, unless it is told.
        how = {"dataformats": "NHWC"} if name == "tensorboard" else {}
        log_images({"rollouts": np.stack([p.pixels for p in pictures])}, step=step, **how)
        tracker.log({"rollouts/thoughts": captions}, step=step)


def _flat_config(config: TrainSettings) -> JsonObject:
    """Flatten the configuration to texts and numbers; addresses lose their passwords."""
    flat: JsonObject = {}

    def walk(value: object, name: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, f"{name}.{key}" if name else str(key))
        else:
            flat[name] = value if isinstance(value, bool | int | float | str) else str(value)

    walk(parse_yaml(mask_secrets(dump_config(config))), "")
    return flat


def _said(error: BaseException) -> str:
    """Write an error in one line, without passwords."""
    return printable(mask_secrets(f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]))
