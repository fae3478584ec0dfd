"""The folder of a run, written so that a run can be killed at any moment and goes on to the same numbers."""

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
              "judge_chunks", "device"}  # fmt: skip
# Those that change what is learned from there on, as errors advise: said when the run goes on.
STEERING = {"optimiser.learning_rate", "max_no_verdict_frac"}
# Keys of older runs' config.yaml that changed no result and are no more: such a run goes on.
REMOVED = {"compile_layers"}


class RunFolder:
    """`out`: config, environment, metrics and checkpoints, written by the main process and read by all."""

    def __init__(self, config: TrainSettings, world: World) -> None:
        self.config, self.world, self.path = config, world, config.out
        self.log = MetricsLog(config.out / "metrics.jsonl")
        self._seconds_before, self._start = 0.0, time.monotonic()
        self._pending: _PendingCheckpoint | None = None
        self.inputs = Inputs(config.out, config.changed_inputs)
        self._steered: list[str] = []  # settings that are others than before, and change what is learned from here on

    @classmethod
    @contextmanager
    def lock(cls, path: Path, world: World) -> Iterator[None]:
        """Hold the folder of a run: the main process for all. Raises UserError, in all, where another run writes to it."""
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
        """The state to go on from, or None for a new run. Raises UserError if the folder holds another run.

        A run without a finished step holds nothing: its folder may be taken over.
        """
        config_file = self.path / "config.yaml"
        newest = checkpoint.latest_checkpoint(self.path)
        if config_file.exists() and (newest or self.log.read(self.log.path)):
            self._refuse_other_run(config_file)
        return checkpoint.load_trainer_state(newest) if newest else None

    def begin(self, state: State | None) -> list[str]:
        """Begin to write: the configuration; drop what came after `state`; set the random generators and the clock.

        state: of the checkpoint that the run goes on from, None for a new run. Returns what to say of changed inputs and settings.
        Raises UserError, with nothing written, for an input that has changed since the run began.
        """
        changes = [*self._steered, *self.inputs.hold(state["step"] if state else 0)]
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
        """Let each process draw from a stream of its own, or from where it left off if as many saved theirs."""
        rank = self.world.rank
        seed_process(self.config.seed, rank, state["step"] if state else 0)
        saved = state.get("rng_of_ranks", [state["rng"]]) if state else []
        if saved and (rank == 0 or len(saved) == self.world.size):
            set_rng_state(saved[rank])

    def describe(self, base: str, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        """Write down what the run begins with, for `thinkdraw compare`; a run that goes on has done so.

        base: revision of the policy before its first step. prompts: all that are trained on.
        """
        file = self.path / STARTED
        if self.world.is_main and not file.exists():
            texts = "\n".join(sorted({prompt.text for prompt in prompts}))
            digest = hashlib.sha256(texts.encode()).hexdigest()[:12]
            atomic_write_json(file, {"base": base, "prompts": digest, "sampling": sampling.model_dump(mode="json")})

    def _refuse_other_run(self, config_file: Path) -> None:
        """Raise UserError unless the folder's configuration is this one, what may change apart."""
        if not self.config.resume:
            raise UserError(
                f"{self.path} holds a run already and resume=false. Choose another out=, or remove that folder."
            )
        found = read_yaml_object(config_file, f"Restore it: without it {self.path} cannot be resumed.")
        before = _flat(self._completed(found))
        now = _flat(parse_yaml(dump_config(self.config)))
        changed = [k for k in sorted((before.keys() | now.keys()) - REMOVED) if before.get(k) != now.get(k)]
        was = {k: f"{k} ({before.get(k)} there, {now.get(k)} now)" for k in changed if k not in MAY_CHANGE}
        self._steered = [f"another value than before: {was[k]}." for k in was if k in STEERING]
        if fixed := [was[k] for k in was if k not in STEERING and k.rpartition(".")[2] not in CONNECTION_SETTINGS]:
            raise HeldError(
                f"{self.path} holds a run with another config: {', '.join(fixed)}. Choose another out=, or the same values."
            )

    def _completed(self, before: JsonObject) -> JsonObject:
        """An older version's configuration with the defaults of the keys that came later; as it is where none can be made."""
        try:
            known = {name: value for name, value in before.items() if name not in REMOVED}
            return parse_yaml(dump_config(type(self.config).model_validate(known)))
        except (ValidationError, AttributeError):
            return before

    def seconds(self) -> float:
        """Seconds since the run began, interruptions left out, by the main process's clock."""
        mine = self._seconds_before + time.monotonic() - self._start
        return self.world.sum({"seconds": mine if self.world.is_main else 0.0})["seconds"]

    def progress(self, step: int) -> float:
        """0..1; with max_seconds by whichever of steps and seconds is further.

        Every process calls it between steps, so it also completes a checkpoint that has been written in the meantime.
        """
        if self._pending and self._pending.writing and self._pending.writing.done():
            self._publish()
        by_steps = step / self.config.max_steps
        return min(
            1.0, max(by_steps, self.seconds() / self.config.max_seconds) if self.config.max_seconds else by_steps
        )

    def save(self, step: int, policy: Trainable, optimiser: Optimiser, best: str = "", **state: Any) -> None:
        """Write a checkpoint, complete or not at all: weights, optimiser, random generators, and what the recipe adds.

        best: name of the best checkpoint so far, which stays. Raises UserError if the disk refuses. Where the state is
        sharded it is still being written when this returns, and the checkpoint is there some steps later, or after `finish`.
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
            if optimiser.sharded:  # every process writes into the main one's folder
                folder = Path(self.world.broadcast(str(folder)))
            if folder:
                writing = checkpoint.save_trainer_state(folder, full, self.world.is_main)
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
        """Wait until the checkpoint that is being written, if any, is complete, in every process."""
        self._publish()
        self.world.wait()

    def _publish(self) -> None:
        """Complete the checkpoint that is being written, if any, and remove those that are no longer kept."""
        if self._pending is None:
            return
        unfinished, self._pending = self._pending, None
        with unfinished.folder:
            if unfinished.writing:
                unfinished.writing.wait()
        if self.world.is_main:
            if unfinished.best:
                atomic_write_text(self.path / "checkpoints" / "best", unfinished.best + "\n")
            checkpoint.prune_checkpoints(self.path, self.config.keep_checkpoints, also_keep={unfinished.best})


@dataclass(frozen=True)
class _PendingCheckpoint:
    """A checkpoint that is complete when the main process closes `folder`, which has to wait for `writing`.

    writing: of the shards, by all processes; None where the state is whole.
    """

    folder: ExitStack
    writing: PendingWrite | None
    best: str


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """{a: {b: 1}} as {"a.b": 1}: settings under the names that they have on the command line."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {
        k: v for key, item in value.items() for k, v in _flat(item, f"{prefix}.{key}" if prefix else str(key)).items()
    }
