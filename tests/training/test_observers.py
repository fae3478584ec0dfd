"""Trackers mirror a run and never end it; callbacks are told of everything, and an error in one ends it."""

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from tests.documents import ROOT, blocks
from tests.training.helpers import grpo_config, sft_config
from tests.training.watchers import TOLD

from thinkdraw.errors import OwnCodeError, UserError
from thinkdraw.recipes import grpo, sft
from thinkdraw.runtime.tracking import MetricsLog
from thinkdraw.training.observers import Callbacks, Trackers
from thinkdraw.training.observers.trackers import Picture
from thinkdraw.training.world import World

TRACKER = "tests.training.watchers:Tracker"
FAILING = "tests.training.watchers:FailingTracker"


@pytest.fixture(autouse=True)
def _nothing_is_told():
    TOLD.clear()


def test_a_tracker_gets_every_row_and_pictures_with_their_thoughts_and_a_callback_every_event(tmp_path, policy):
    config = grpo_config(
        tmp_path, policy, max_steps=2, save_every=1, log_rollouts_every=2, log_groups=1, log_with=[TRACKER],
        tracker_project="mine", tracker_settings={TRACKER: {"colour": "red"}},
        callbacks=["tests.training.watchers:Callback"],
    )  # fmt: skip
    run = grpo.run(config)
    events = [told for told in TOLD if told[0] in ("start", "step", "save", "end")]
    assert [event[:2] for event in events] == [
        ("start", 0), ("step", 1), ("save", "step_000001"), ("step", 2), ("save", "step_000002"), ("end", 2),
    ]  # fmt: skip
    assert events[1][2][0] == 12 and all(event[2] for event in events if event[0] == "save")  # 3 prompts × 4; complete
    assert TOLD[0] == ("made", "mine", "red") and TOLD[-1] == ("finish",)
    (stored,) = [told[1] for told in TOLD if told[0] == "config"]
    assert stored["optimiser.learning_rate"] == 1e-3 and not any(isinstance(value, dict) for value in stored.values())
    logged = [told[1:] for told in TOLD if told[0] == "log"]
    rows = {row["step"]: row for row in MetricsLog.read(run / "metrics.jsonl")}
    scalars = [(values, step) for values, step in logged if "reward_mean" in values]
    assert [step for _, step in scalars] == [1, 2]
    for values, step in scalars:
        assert values == {k: v for k, v in rows[step].items() if v is not None and k != "step"}
    ((pictures, step),) = [told[1:] for told in TOLD if told[0] == "images"]
    (texts,) = [values["rollouts/thoughts"] for values, _ in logged if "rollouts/thoughts" in values]
    assert step == 1 and pictures["rollouts"].shape[0] == 4 and pictures["rollouts"].dtype == np.uint8
    assert len(texts.split("\n\n")) == 4 and "reward" in texts


def test_a_tracker_that_fails_is_one_warning_and_training_goes_on(tmp_path, policy, capfd):
    run = sft.run(sft_config(tmp_path, policy, max_steps=4, log_with=[FAILING]))
    assert [row["step"] for row in MetricsLog.read(run / "metrics.jsonl")] == [1, 2, 3, 4]
    said = [line for line in capfd.readouterr().err.splitlines() if "warning: tracker" in line]
    assert len(said) == 1 and "ConnectionError" in said[0] and "training goes on" in said[0] and "secret" not in said[0]
    assert [told for told in TOLD if told[0] == "tried"] == [("tried", 1), ("tried", 2), ("tried", 3)]


def test_a_tracker_that_is_not_installed_is_one_line_with_the_extra_to_install(tmp_path, policy, monkeypatch, capfd):
    monkeypatch.setattr("thinkdraw.training.observers.trackers.find_spec", lambda name: None)
    sft.run(sft_config(tmp_path, policy, max_steps=1, log_with=["wandb", "tensorboard"]))
    said = capfd.readouterr().err
    assert said.count("is not installed") == 2 and "pip install 'thinkdraw[wandb]'" in said


class Fake(ModuleType):
    """Stands in for a tracker's package, and remembers its calls."""

    def __init__(self, name: str, calls: list) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self.calls = calls
        self.config = SimpleNamespace(update=lambda values, **how: None)
        self.utils = SimpleNamespace(
            validation=SimpleNamespace(MAX_PARAM_VAL_LENGTH=500, MAX_PARAMS_TAGS_PER_BATCH=100)
        )

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args, **kwargs):
            self.calls.append((name, args, kwargs))
            if name == "init":
                return self
            return [] if name == "search_experiments" else SimpleNamespace(info=SimpleNamespace(run_id="run-7"))

        return call


@pytest.mark.parametrize("name", ["wandb", "trackio", "mlflow"])
def test_a_run_that_goes_on_is_the_same_run_in_its_tracker(name, tmp_path, policy, monkeypatch):
    """Of the packages, which are not installed here, only the calls are known; accelerate's own classes make them."""
    calls: list = []
    monkeypatch.setitem(sys.modules, name, Fake(name, calls))
    config = sft_config(tmp_path, policy, log_with=[name])
    World(config)
    starts = []
    for step in (0, 5):
        calls.clear()
        trackers = Trackers(config, True, lambda key, message: pytest.fail(message))
        trackers.start(step)
        trackers.log({"step": step + 1, "loss": 0.5, "nothing": None}, step + 1)
        trackers.log_pictures([Picture(np.zeros((2, 2, 3), np.uint8), "a star | I draw it")], step + 1)
        trackers.finish()
        starts.append(next(kwargs for call, _, kwargs in calls if call in ("init", "start_run")))
        names = {call for call, _, _ in calls}
        assert names & {"log", "log_metrics"} and names & {"Image", "log_image"}
    if name == "mlflow":
        assert [start["run_id"] for start in starts] == [None, "run-7"]
    else:
        assert starts[0] == starts[1] and starts[0]["resume"] == "allow" and "name" in starts[0]


def test_other_processes_than_the_main_one_have_no_trackers(tmp_path, policy):
    trackers = Trackers(sft_config(tmp_path, policy, log_with=[TRACKER]), False, pytest.fail)
    trackers.start(0)
    assert trackers.is_empty and not TOLD


def test_an_error_in_a_callback_ends_the_run_with_a_line_that_names_it(tmp_path, policy):
    config = sft_config(tmp_path, policy, callbacks=["tests.training.watchers:BrokenCallback"])
    with pytest.raises(
        OwnCodeError, match=r"BrokenCallback, on_step, raised ZeroDivisionError: no sheep \(watchers.py"
    ):
        sft.run(config)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("tests.training.watchers:MisspeltCallback", "on_stpe, which nothing calls. Did you mean on_step?"),
        ("tests.training.watchers:SilentCallback", "nothing would ever call it"),
        ("tests.training.watchers:Missing", "has no Missing"),
        ("not_there.mine:Callback", "cannot import not_there"),
    ],
)
def test_a_callback_that_nothing_would_call_is_refused(name, says, tmp_path, policy):
    with pytest.raises(UserError) as error:
        Callbacks([name], World(sft_config(tmp_path, policy)))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"log_with": ["wandbb"]}, "known trackers are"),
        ({"tracker_settings": {"wandb": {}}}, "log_with does not name"),
        ({"tracker_project": "mine"}, "there are none"),
        ({"callbacks": ["mine"]}, "my_pkg.mine:MyCallback"),
    ],
)
def test_names_of_trackers_and_callbacks_that_nothing_reads_are_refused(changes, says, tmp_path, policy):
    with pytest.raises(ValueError, match=says):
        sft_config(tmp_path, policy, **changes)


def test_a_single_tracker_or_callback_may_be_written_without_a_list(tmp_path, policy):
    config = sft_config(tmp_path, policy, log_with="wandb", callbacks="mine:Mine")
    assert (config.log_with, config.callbacks) == (["wandb"], ["mine:Mine"])


def test_trackers_may_change_when_a_run_goes_on(tmp_path, policy):
    sft.run(sft_config(tmp_path, policy, max_steps=1))
    sft.run(sft_config(tmp_path, policy, max_steps=2, log_with=[TRACKER], tracker_settings={TRACKER: {"colour": "b"}}))
    assert [told[2] for told in TOLD if told[0] == "log"] == [2]


def test_the_callback_of_the_documents_runs(tmp_path, policy, monkeypatch):
    (code,) = [text for _, _, text in blocks(ROOT / "docs/how_a_run_works.md", "python") if "callbacks=" in text]
    assert len([line for line in code.splitlines() if line and not line.startswith("#")]) <= 15
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_callbacks.py").write_text(code)
    config = grpo_config(tmp_path, policy, max_steps=1, callbacks=["my_callbacks:Sheets"])
    assert MetricsLog.read(grpo.run(config) / "metrics.jsonl")[0]["thought_tokens_mean"] >= 3
    assert [file.name for file in (tmp_path / "run/sheets").iterdir()] == ["000001.png"]
    (callback,) = [callback for _, callback in Callbacks(config.callbacks, World(config))._callbacks]
    callback.on_start(run := SimpleNamespace(path=tmp_path, step=7))
    batch = SimpleNamespace(rollouts=SimpleNamespace(pictures=torch.zeros(4, 8, 8, 3, dtype=torch.uint8)), group_size=2)
    callback.on_step(run, {"thought_tokens_mean": 9.0}, batch)
    with pytest.raises(RuntimeError, match="stopped thinking"):
        callback.on_step(run, {"thought_tokens_mean": 1.0}, batch)
