"""The owner of a run: what all recipes share around their loop and loss.

A recipe is the loop inside `with Run.open(config) as run:`, a loss for `run.update`, and nothing of what is here.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.policies.opening import policy_input, policy_path
from thinkdraw.runtime.checkpoint import State
from thinkdraw.runtime.generators import initial_weights, seed_initial_weights
from thinkdraw.runtime.inputs.run_inputs import Input
from thinkdraw.training.batch import Batch
from thinkdraw.training.display import Display
from thinkdraw.training.folder import RunFolder
from thinkdraw.training.ledger import Ledger
from thinkdraw.training.observers import Callbacks, Trackers
from thinkdraw.training.optimiser import Optimiser, Trainable
from thinkdraw.training.settings import TrainSettings
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Prompt, Sampling


class Stateful(Protocol):
    """A part of a recipe with a state for the run's checkpoints, see `Run.remember`."""

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State, /) -> None: ...


Part = TypeVar("Part", bound=Stateful)
Fields = TypeVar("Fields")
Micro = TypeVar("Micro", covariant=True)
Rows = TypeVar("Rows")
Trained = TypeVar("Trained", bound=Trainable)


class Divisible(Protocol[Micro]):
    """Rows that `Run.update` takes a step on: this process's, in micro-batches.

    `Batch` is one.
    """

    def micro(self, rows: int) -> Iterable[Micro]:
        """Micro-batches of up to `rows` sequences; any number gives the same gradient."""
        ...

    def num_micro(self, rows: int) -> int: ...


@dataclass(frozen=True)
class Loss:
    """What a recipe's loss function returns for a micro-batch.

    loss: the micro-batch's share of the step's loss, with gradient. Shares add up, so each is divided by counts of the
    *whole* step, over all micro-batches and processes, and never by its own.
    sums: numbers to log that add up over micro-batches and processes. maxima: numbers of which the largest is logged.
    """

    loss: Tensor
    sums: Mapping[str, Tensor | float]
    maxima: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """What an optimiser step did, over all processes.

    sums, maxima: see `Loss`. grad_norm: before clipping.
    """

    sums: dict[str, float]
    maxima: dict[str, float]
    grad_norm: float
    learning_rate: float

    def row(self) -> dict[str, float]:
        """Its columns of metrics.jsonl."""
        return self.sums | {"grad_norm": self.grad_norm, "learning_rate": self.learning_rate}


def backward(
    loss: Callable[[Rows], Loss], batch: Divisible[Rows], rows: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Run the loss and its backward pass on each micro-batch of up to `rows` rows.

    Gradients accumulate over them. Returns the sums and the maxima of their `Loss`.
    """
    sums: dict[str, Tensor | float] = {}
    maxima: dict[str, float] = {}
    for micro in batch.micro(rows):
        result = loss(micro)
        result.loss.backward()
        for name, value in result.sums.items():
            sums[name] = sums.get(name, 0.0) + (value.detach() if isinstance(value, Tensor) else value)
        for name, value in result.maxima.items():
            maxima[name] = max(maxima.get(name, 0.0), value)
    return {name: float(value) for name, value in sums.items()}, maxima


def open_policy(config: TrainSettings, world: World) -> Policy:
    """Open the policy that a configuration trains, on this process's device.

    Weights that begin at random, such as adapters, follow from the configuration's seed.
    """
    with initial_weights(config.seed):
        policy = load_policy(
            policy_path(config.policy),
            device=str(world.device),
            dtype=config.dtype,
            lora=config.lora,
            precision=config.precision,
        )
    prepare_layers(policy, config)
    return policy


def prepare_layers(trained: Trainable, config: TrainSettings) -> None:
    """Switch on gradient checkpointing if it is asked for."""
    if config.gradient_checkpointing:
        trained.checkpoint_layers()


class Run(Generic[Trained]):
    """A training run, new or going on after a stop; a recipe calls `update` in a loop.

    policy: what is trained. step: optimiser steps done. base: revision of the policy before the first step.
    """

    def __init__(self, config: TrainSettings, world: World, policy: Trained, *, reference: bool) -> None:
        self.config, self.world, self.policy = config, world, policy
        self.folder = RunFolder(config, world)
        if reference:  # a copy of the starting policy: the weights of a checkpoint are loaded later, by `begin`
            policy.make_reference()  # type: ignore[attr-defined]  policies only
        self.base = policy.revision
        self._state = self.folder.read()
        self.ledger, self.step = Ledger.of(self._state), 0
        self.best, self.best_score = "", -math.inf
        if self._state:
            self.step, self.best = self._state["step"], self._state["best"]
            self.best_score = self._state.get("best_score", -math.inf)
        world.refuse_differences(
            f"the checkpoints in {config.out}",
            {"step": self.step},
            "All processes must see the same folder: put `out` on a disk that they share.",
        )
        self._saved = self.step  # step of the newest checkpoint
        self._decided: tuple[int, bool] | None = None  # the latest step, and whether the run goes on after it
        self._parts: dict[str, Stateful] = {}
        self._fields: list[Any] = []
        self._has_begun = False
        self.note("policy", policy_input(config.policy, self.base))
        self.display = Display(config.recipe, config.max_steps, config.log_every, world.is_main, announce=True)
        self.callbacks = Callbacks(config.callbacks, world)
        self.trackers = Trackers(config, world.is_main, self.display.warn)

    @classmethod
    @contextmanager
    def open(
        cls,
        config: TrainSettings,
        open_trained: Callable[[Any, World], Trained] = open_policy,
        *,
        reference: bool = False,
    ) -> Iterator["Run[Trained]"]:
        """Start a new run, or go on with the one in `config.out`.

        At the end of the `with` block, steps that are not saved yet are saved.
        open_trained: opens what is trained. reference: keep a frozen copy of it as it is before the first step.
        Raises UserError for too many processes, a folder that holds another run or that another process writes to, and a
        policy that cannot be opened.
        """
        world = World(config)
        if why := config.too_many_processes(world.size):
            raise UserError(why)
        with RunFolder.lock(config.out, world):
            seed_initial_weights(config.seed)
            run = cls(config, world, open_trained(config, world), reference=reference)
            with run.display:
                try:
                    yield run
                    run.save()
                    run.folder.finish()
                    run.callbacks.call("on_end", run)
                finally:
                    run.trackers.finish()

    # State in checkpoints, and inputs

    @property
    def is_new(self) -> bool:
        """Whether the run has no checkpoint to go on from."""
        return self._state is None

    def remember(self, name: str, part: Part) -> Part:
        """Save a part's state in every checkpoint, and restore it now if the run goes on.

        name: its key in checkpoints. Returns the part.
        """
        self._parts[name] = part
        if self._state and name in self._state:
            part.load_state_dict(self._state[name])
        return part

    def remember_fields(self, values: Fields) -> Fields:
        """Do the same for the fields of a dataclass, each under its name; return it."""
        self._fields.append(values)
        for name in (f.name for f in dataclasses.fields(values)):  # type: ignore[arg-type]
            if self._state and name in self._state:
                setattr(values, name, self._state[name])
        return values

    def note(self, setting: str, content: Input) -> None:
        """Note what was read for a setting; a run that goes on must read the same.

        It is checked by `begin`, or now if the run has begun.
        Raises UserError if it is not what the run began with, unless `changed_inputs` takes it up.
        """
        self.folder.inputs.note(setting, content)
        if self._has_begun:
            self._warn_of(self.folder.inputs.hold(self.step))
            if self.world.is_main:
                self.folder.inputs.write()

    def _warn_of(self, changes: Iterable[str]) -> None:
        for line in changes:
            self.display.warn(line, line)

    # The loop

    def begin(
        self, prompts: Sequence[Prompt] = (), sampling: Sampling | None = None, drawing: Sampling | None = None
    ) -> None:
        """Begin to write into the folder, and load the weights that the run goes on from.

        Until here the policy is the starting policy, also after a stop: judges and reference may copy it. Call this after
        everything that may refuse to start, so that a refusal leaves nothing behind.
        prompts, sampling, drawing: what is trained on, as far as it is known, see `describe`.
        """
        self.optimiser = Optimiser(self.policy, self.config.optimiser, self.world)
        if self._state:
            self.optimiser.load_state_dict(self._state)
        self._warn_of(self.folder.begin(self._state))
        self._has_begun = True
        if sampling is not None:
            self.describe(prompts, sampling, drawing)
        self.trackers.start(self.step)
        self.callbacks.call("on_start", self)

    def describe(self, prompts: Sequence[Prompt], sampling: Sampling, drawing: Sampling | None = None) -> None:
        """Write down what the run learns from, once, for `thinkdraw compare`.

        drawing: how checkpoints are drawn with later, which each of them records; None: as `sampling`.
        """
        self.folder.describe(self.base, prompts, sampling)
        self.folder.drawing = drawing or sampling

    @property
    def progress(self) -> float:
        """0..1: by steps, or by `max_seconds` where that is further."""
        return self.folder.progress(self.step)

    @property
    def goes_on(self) -> bool:
        """Whether there is another step to make.

        Decided once per step: with `max_seconds` the clock decides, and a second look might see another answer.
        """
        if self._decided is None or self._decided[0] != self.step:
            self._decided = self.step, self.progress < 1
        return self._decided[1]

    def full_weights(self) -> AbstractContextManager[None]:
        """Give each process all weights inside the block: to sample, score and save.

        Without shards it always has them.
        """
        return self.optimiser.full_weights()

    @contextmanager
    def clock(self, column: str) -> Iterator[None]:
        """Add the seconds that the block takes to a column of the ledger."""
        began = time.monotonic()
        yield
        self.ledger.add(**{column: time.monotonic() - began})

    def update(
        self,
        loss: Callable[[Rows], Loss],
        batch: Divisible[Rows],
        sampling: Sampling | None = None,
        *,
        may_be_flat: bool = False,
    ) -> Update:
        """Take one optimiser step on a batch.

        Backward passes over micro-batches, sums over processes, then AdamW.
        loss: micro-batch → `Loss`. sampling: how the rollouts were sampled, needed where weights may be sharded.
        may_be_flat: expect gradients of 0, as of groups whose rewards are all equal, and do not warn of them.
        """
        sums, maxima = self.optimiser.collect(
            lambda rows: backward(loss, batch, rows), self.config.micro_rows, batch.num_micro, sampling
        )
        sums, maxima = self.world.sum_by_name(sums), self.world.maximum_by_name(maxima)
        grad_norm, rate = self.optimiser.step(self.step, self.progress)
        self.step += 1
        if grad_norm == 0 and not may_be_flat:
            self.display.warn(
                "gradient",
                "the gradient norm is 0: nothing is learned. Are text_weight and image_weight 0, or all weights frozen?",
            )
        return Update(sums, maxima, grad_norm, rate)

    def skip(self, why: str) -> None:
        """Count a step without an update, where there is nothing to learn from.

        It counts so that a run of such steps still comes to its end.
        """
        self.display.warn("empty", f"{why}: skipped.")
        self.step += 1

    def log(
        self, row: Mapping[str, float | None], shown: tuple[str, ...], batch: Batch | None = None
    ) -> dict[str, float | None]:
        """Append a row to metrics.jsonl, with step, costs and seconds; return it.

        Trackers and callbacks are told of it.
        shown: columns to print beside the progress. batch: the rollouts that the row is about, for callbacks.
        """
        whole = {"step": self.step, **row, **self.ledger.row(), "seconds": self.folder.seconds()}
        if self.world.is_main:
            self.folder.log.append(whole)
        self.display.show(self.step, whole, shown, self.progress)
        self.trackers.log(whole, self.step)
        self.callbacks.call("on_step", self, whole, batch)
        return whole

    # Checkpoints

    def save_when_due(self, score: float | None = None) -> None:
        """Save every `save_every` steps, and when `score` is the best (highest) so far."""
        is_best = score is not None and score > self.best_score
        if is_best:
            self.best, self.best_score = f"step_{self.step:06d}", float(score or 0.0)
        if is_best or self.step - self._saved >= self.config.save_every:
            self._save()

    def save(self) -> None:
        """Save what is not saved yet."""
        if self._saved != self.step:
            self._save()

    def _save(self) -> None:
        state: State = {name: part.state_dict() for name, part in self._parts.items()}
        for values in self._fields:
            state |= {f.name: getattr(values, f.name) for f in dataclasses.fields(values)}
        if self.config.chooses_best:
            state["best_score"] = self.best_score
        self.folder.save(self.step, self.policy, self.optimiser, self.best, ledger=self.ledger.row(), **state)
        self._saved = self.step
        if self.callbacks.listens("on_save"):
            self.folder.finish()  # shards are written in the background, and a callback may read the folder
            self.callbacks.call("on_save", self, self.path / "checkpoints" / f"step_{self.step:06d}")

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.path
