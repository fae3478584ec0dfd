"""Recorded steps write the rollouts of the plain ones, and one that does not is given up with a warning."""

import warnings
from collections.abc import Callable

import pytest
import torch
from tests.policies.fast import recorder
from tests.policies.suite import PROMPTS, SEEDS, assert_same_rollouts, difference, sampling, tolerance

from thinkdraw.policies.fast import cpu_operations, cuda_graphs
from thinkdraw.policies.fast.cuda_graphs import CudaGraphs, RecordedSteps, recorder_for
from thinkdraw.policies.janus.policy import JanusPolicy


@pytest.fixture
def recorded(policy, monkeypatch):
    """A policy that samples by torch alone, for what is not torch's cannot be noted, and how often steps were recorded."""
    counts = {"records": 0, "replays": 0}

    def counting(step: Callable[[], None]) -> Callable[[], None]:
        counts["records"] += 1
        replay = recorder.record(step)

        def counted() -> None:
            counts["replays"] += 1
            replay()

        return counted

    monkeypatch.setattr(cpu_operations, "kernels_for", lambda *_: None)
    monkeypatch.setattr(cuda_graphs, "recorder_for", lambda device: counting)
    monkeypatch.setattr(cuda_graphs, "COLUMNS", 16)
    return policy, counts


def plainly(policy: JanusPolicy, settings, **options):
    policy.cuda_graphs = False
    rollouts = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS, **options)
    policy.cuda_graphs = True
    return rollouts


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_recorded_steps_write_what_plain_ones_do(recorded, thought, guidance_scale, greedy):
    policy, counts = recorded
    settings = sampling(thought, guidance_scale=guidance_scale, greedy=greedy, max_thought_tokens=24)
    wanted = plainly(policy, settings)
    found = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    assert_same_rollouts(found, wanted)
    assert greedy or difference(policy, found) <= tolerance(settings)
    # 15 steps of a picture after its first token, over at most 3 numbers of columns; at least 8 of thoughts.
    assert 0 < counts["records"] < counts["replays"] and counts["replays"] >= (15 if thought == "off" else 23)
    policy.max_rows = 4  # slots are filled again
    assert_same_rollouts(policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS), wanted)


def test_a_prefix_goes_on_by_recorded_steps(recorded):
    policy, counts = recorded
    settings = sampling(guidance_scale=3.0)
    whole = plainly(policy, settings)
    prompts = [PROMPTS[i // 2] for i in range(6)]
    lengths = (whole.segment >= 0).sum(1) - torch.tensor([9, 1, 16, 20, 5, 2])
    again = policy.sample(prompts, settings, seeds=SEEDS, prefix=whole, prefix_lengths=lengths.clamp(min=0))
    assert_same_rollouts(whole, again)
    assert counts["replays"] > 0
    # Any number of thoughts that go on, where steps have 1, 2, 4 … rows.
    drawing = (whole.segment >= 0).sum(1) - 16
    for thinking in range(1, 6):
        kept = torch.where(torch.arange(6) < thinking, 0, drawing)
        again = policy.sample(prompts, settings, seeds=SEEDS, prefix=whole, prefix_lengths=kept)
        assert_same_rollouts(whole, again)


def test_what_top_p_leaves_is_sampled_by_plain_steps(recorded):
    policy, counts = recorded
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.sample(PROMPTS, sampling(top_p=0.9), seeds=SEEDS[:3])
    assert counts["records"] == 0


def cannot_be_recorded(step):
    raise RuntimeError("operation not permitted when stream is capturing")


def replays_nothing(step):
    return lambda: None


@pytest.mark.parametrize(
    ("record", "said"),
    [(cannot_be_recorded, "cannot be recorded .*capturing"), (replays_nothing, "gives other numbers")],
)
def test_a_step_that_is_not_replayed_rightly_is_run_as_it_is(recorded, monkeypatch, record, said):
    policy, _ = recorded
    settings = sampling(guidance_scale=3.0)
    wanted = plainly(policy, settings)
    monkeypatch.setattr(cuda_graphs, "recorder_for", lambda device: record)
    with pytest.warns(UserWarning, match=f"a decoding step {said}.*cuda_graphs=false") as caught:
        found = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    assert_same_rollouts(found, wanted)
    assert len([w for w in caught if "decoding step" in str(w.message)]) == 1


def test_memory_that_runs_out_in_a_recording_is_not_mistaken_for_a_step_that_cannot_be_recorded():
    def runs_out(step):
        raise torch.OutOfMemoryError("CUDA out of memory")

    log_probs = torch.zeros(1)
    with pytest.raises(torch.OutOfMemoryError):
        RecordedSteps(runs_out).run("key", lambda: log_probs.add_(1), [log_probs])  # type: ignore[arg-type,return-value]


def test_only_nvidia_gpus_record(monkeypatch):
    assert recorder_for(torch.device("cpu")) is None and recorder_for(torch.device("mps")) is None
    made = object.__new__(CudaGraphs)
    monkeypatch.setattr("thinkdraw.policies.fast.cuda_graphs.CudaGraphs", lambda device: made)
    assert recorder_for(torch.device("cuda")) is made


def test_the_stand_in_for_a_gpu_sees_a_look_at_a_tensor_and_changes_nothing_while_it_records():
    state = torch.zeros(3)

    def step() -> None:
        state.add_(torch.ones(3) * 2)

    replay = recorder.record(step)
    assert (state == 0).all()
    replay()
    replay()
    assert (state == 4).all()
    for look in (lambda: bool(state.any()), lambda: state[state > 0], lambda: state.nonzero()):
        with pytest.raises(RuntimeError, match="capturing"):
            recorder.record(look)


def test_a_step_that_wrote_nothing_is_not_recorded_yet():
    counts, log_probs = [], torch.zeros(2)

    def record(step):
        counts.append(step)
        return step

    steps = RecordedSteps(record)
    steps.run("key", lambda: None, [log_probs])
    assert counts == []
    steps.run("key", lambda: log_probs.copy_(torch.ones(2)), [log_probs])  # type: ignore[arg-type,return-value]
    assert len(counts) == 1 and (log_probs == 1).all()
