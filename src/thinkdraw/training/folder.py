"""The folder of a run: killed at any moment, a run goes on to the same numbers."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError

from thinkdraw.config import dump_config, save_config
from thinkdraw.errors import HeldError, UserError
from thinkdraw.policies.drawing import write_record
from thinkdraw.runtime import checkpoint
from thinkdraw.runtime.checkpoint import State
from thinkdraw.runtime.endpoints import CONNECTION_SETTINGS
from thinkdraw.runtime.files import atomic_write_json, atomic_write_text, only_writer
from thinkdraw.runtime.formats import parse_yaml, read_yaml_object
from thinkdraw.runtime.generators import rng_state, seed_process, set_rng_state
from thinkdraw.runtime.inputs.run_inputs import Inputs
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.runtime.sharded_state import PendingWrite
from thinkdraw.runtime.tracking import MetricsLog, environment
from thinkdraw.training.optimiser import Optimiser, Trainable
from thinkdraw.training.settings import TrainSettings
from thinkdraw.training.world import World
from thinkdraw.types import Prompt, Sampling

STARTED = "started.json"
# Settings that may differ between a run that was stopped and its continuation.
MAY_CHANGE = {"max_steps", "max_seconds", "resume", "log_every", "num_processes", "sharding", "patience_s",
              "optimiser.offload", "changed_inputs", "num_threads", "keep_checkpoints", "save_every", "micro_rows",
              "judge_chunks", "device", "log_with", "tracker_project", "tracker_settings", "callbacks"}  # fmt: skip
# Settings that may differ too, since errors advise to change them. They change what is learned, so a warning names them.
WARNED = {"optimiser.learning_rate", "max_no_verdict_frac"}
# Keys in config.yaml of older versions that no longer exist and never changed a result: such a run goes on.
REMOVED = {"compile_layers"}


class RunFolder:
    """The run folder (`out`): config, environment, metrics and checkpoints.

    The main process writes it, all processes read it.
    """

    def __init__(self, config: TrainSettings, world: World) -> None:
        self.config, self.world, self.path = config, world, config.out
        self.log = MetricsLog(config.out / "metrics.jsonl")
        self._seconds_before, self._start = 0.0, time.monotonic()
        self._pending: _PendingCheckpoint | None = None
        self.inputs = Inputs(config.out, config.changed_inputs)
        self.drawing: Sampling | None = None  # how its checkpoints are to be drawn with; each records it
        self._warnings: list[str] = []  # of WARNED settings that have another value than before

    @classmethod
    @contextmanager
    def lock(cls, path: Path, world: World) -> Iterator[None]:
        """Lock the folder against other runs; the main process does it for all.

        Raises UserError, in every process, if another run writes to the folder.
        """
        with ExitStack() as held:
            refusal = ""
            if world.is_main:
                try:
                    held.enter_context(only_writer(path))
                except UserError as error:
                    refusal = str(error)
            if refusal := world.broadcast(refusal):
                raise UserError(refusal)
            yield

    def read(self) -> State | None:
        """Read the state to go on from; None for a new run.

        Raises UserError if the folder holds another run.
        A run without a finished step has nothing to lose: another run may take over its folder.
        """
        config_file = self.path / "config.yaml"
        newest = checkpoint.latest_checkpoint(self.path)
        if config_file.exists() and (newest or self.log.read(self.log.path)):
            self._refuse_other_run(config_file)
        return checkpoint.load_trainer_state(newest) if newest else None

    def begin(self, state: State | None) -> list[str]:
        """Begin to write into the folder.

        Writes the configuration, drops what came after `state`, and sets the random generators and the clock.
        state: of the checkpoint that the run goes on from, None for a new run.
        Returns warnings of changed inputs and settings. Raises UserError, with nothing written, for an input that has changed
        since the run began.
        """
        changes = [*self._warnings, *self.inputs.hold(state["step"] if state else 0)]
        self.world.wait()
        if self.world.is_main:
            if not state:
                (self.path / STARTED).unlink(missing_ok=True)  # of a run that never took a step
            save_config(self.config, self.path / "config.yaml")
            self.inputs.write()
            atomic_write_json(self.path / "environment.json", environment())
            step = state["step"] if state else 0
            self.log.truncate_after(step)
            for file in self.path.glob("rollouts/step_*.parquet"):
                if int(file.stem.removeprefix("step_")) > step:
                    file.unlink()
            if state and state["best"]:
                atomic_write_text(self.path / "checkpoints" / "best", state["best"] + "\n")
        self._set_generators(state)
        self._seconds_before = state["seconds"] if state else 0.0
        self._start = time.monotonic()
        return changes

    def _set_generators(self, state: State | None) -> None:
        """Set this process's random generators: a stream of its own, or as it was saved.

        Saved ones are restored in the main process, and in all if the run goes on with as many processes as before.
        """
        rank = self.world.rank
        seed_process(self.config.seed, rank, state["step"] if state else 0)
        saved = state.get("rng_of_ranks", [state["rng"]]) if state else []
        if saved and (rank == 0 or len(saved) == self.world.size):
            set_rng_state(saved[rank])

    def describe(self, base: str, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """Write down what the run begins with, once, for `thinkdraw compare`.

        base: revision of the policy before its first step. prompts: all that are trained on.
        """
        file = self.path / STARTED
        if self.world.is_main and not file.exists():
            texts = "\n".join(sorted({prompt.text for prompt in prompts}))
            digest = hashlib.sha256(texts.encode()).hexdigest()[:12]
            atomic_write_json(file, {"base": base, "prompts": digest, "sampling": sampling.model_dump(mode="json")})

    def _refuse_other_run(self, config_file: Path) -> None:
        """Raise UserError if the folder holds a run with another configuration.

        Settings in MAY_CHANGE, in WARNED and addresses of servers may differ.
        """
        if not self.config.resume:
            raise UserError(
                f"{self.path} holds a run already and resume=false. Choose another out=, or remove that folder."
            )
        saved = read_yaml_object(config_file, f"Restore it: without it {self.path} cannot be resumed.")
        before = _flat(self._with_new_defaults(saved))
        now = _flat(parse_yaml(dump_config(self.config)))
        changed = [k for k in sorted((before.keys() | now.keys()) - REMOVED) if before.get(k) != now.get(k)]
        was = {
            k: f"{k} ({before.get(k)} there, {now.get(k)} now)"
            for k in changed
            if k not in MAY_CHANGE and not k.startswith("tracker_settings.")
        }
        self._warnings = [f"another value than before: {was[k]}." for k in was if k in WARNED]
        if fixed := [was[k] for k in was if k not in WARNED and k.rpartition(".")[2] not in CONNECTION_SETTINGS]:
            raise HeldError(
                f"{self.path} holds a run with another config: {', '.join(fixed)}. Choose another out=, or the same values."
            )

    def _with_new_defaults(self, before: JsonObject) -> JsonObject:
        """Add the defaults of newer keys to a configuration of an older version.

        One that this version cannot read at all is returned as it is.
        """
        try:
            known = {name: value for name, value in before.items() if name not in REMOVED}
            return parse_yaml(dump_config(type(self.config).model_validate(known)))
        except (ValidationError, AttributeError):
            return before

    def seconds(self) -> float:
        """Measure seconds since the run began, without interruptions.

        The main process's clock counts, for all processes.
        """
        # Processes must agree, for instance on when `max_seconds` is over, so the sum has the main one's seconds alone.
        mine = self._seconds_before + time.monotonic() - self._start
        return self.world.sum({"seconds": mine if self.world.is_main else 0.0})["seconds"]

    def progress(self, step: int) -> float:
        """Compute the progress, 0..1: by steps, or by `max_seconds` where that is further.

        Every process calls this between steps, so it also completes a checkpoint that has been written meanwhile.
        """
        if self._pending and self._pending.writing and self._pending.writing.done():
            self._publish()
        by_steps = step / self.config.max_steps
        return min(
            1.0, max(by_steps, self.seconds() / self.config.max_seconds) if self.config.max_seconds else by_steps
        )

    def save(self, step: int, policy: Trainable, optimiser: Optimiser, best: str = "", **state: Any) -> None:
        """Write a checkpoint, complete or not at all.

        It holds weights, optimiser, random generators, and `state`, which the recipe adds.
        best: name of the best checkpoint so far, which is kept. Raises UserError if the disk refuses.
        Shards are written in the background: the checkpoint is complete some steps later, or after `finish`.
        """
        self._publish()
        seconds = self.seconds()
        full = {
            "step": step,
            "seconds": seconds,
            "rng": rng_state(),
            "best": best,
            **optimiser.state_dict(),
            **state,
        }
        if self.world.size > 1:
            full["rng_of_ranks"] = self.world.gather(full["rng"])
        writing = None
        with ExitStack() as opened:
            folder = opened.enter_context(self._checkpoint(step)) if self.world.is_main else None
            with optimiser.full_weights():
                optimiser.refuse_differences(step)
                if folder:
                    policy.save(folder)
                    if self.drawing is not None:
                        write_record(folder, self.drawing)
            if optimiser.sharded:  # every process writes into the main one's folder
                folder = Path(self.world.broadcast(str(folder)))
            if folder:
                writing = checkpoint.save_trainer_state(folder, full, self.world.is_main)
            # The folder stays open beyond this block: closing it moves the finished checkpoint to its place.
            self._pending = _PendingCheckpoint(opened.pop_all(), writing, best)
        if writing is None:
            self.finish()

    @contextmanager
    def _checkpoint(self, step: int) -> Iterator[Path]:
        """Open a checkpoint folder to write to. Raises UserError if the disk refuses."""
        try:
            with checkpoint.write_checkpoint(self.path, step) as folder:
                yield folder
        except SafetensorError as error:
            raise UserError(
                f"cannot write checkpoint of step {step} in {self.path}: {error}. Free space on that disk."
            ) from error

    def finish(self) -> None:
        """Wait, in every process, until no checkpoint is being written any more."""
        self._publish()
        self.world.wait()

    def _publish(self) -> None:
        """Complete the checkpoint that is being written, if any; remove outdated ones."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        with pending.folder:
            if pending.writing:
                pending.writing.wait()
        if self.world.is_main:
            if pending.best:
                atomic_write_text(self.path / "checkpoints" / "best", pending.best + "\n")
            checkpoint.prune_checkpoints(self.path, self.config.keep_checkpoints, also_keep={pending.best})


@dataclass(frozen=True)
class _PendingCheckpoint:
    """A checkpoint that is still being written.

    It is complete when the main process closes `folder`, which must wait for `writing`.
    writing: of the shards, by all processes; None where nothing is sharded.
    """

    folder: ExitStack
    writing: PendingWrite | None
    best: str


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten settings to their names on the command line: {a: {b: 1}} → {"a.b": 1}."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {
        k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }
