"""What must hold on a GPU, as functions that raise where it does not; `host.py` runs them, `test_gpu_faults.py` asks it to."""

import sys
import tempfile
import threading
import warnings
from pathlib import Path
from typing import Any, cast

import torch
from tests.emulated import device

from thinkdraw.policies import load_policy
from thinkdraw.policies.fast import cpu_kernels, cpu_operations, cuda_graphs
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.recipes.phase.judging import JudgingThread
from thinkdraw.runtime import device as runtime_device
from thinkdraw.types import Prompt, Sampling

GPU = torch.device("cuda", 0)
PROMPTS = [Prompt("a red circle", id="0"), Prompt("two blue stars", id="1")]
BENCH = Path(__file__).resolve().parents[2] / "bench"


# What is compiled for CPUs takes longer to compile than all that is done here.
cpu_kernels.kernels_for = cpu_operations.kernels_for = lambda *_: None  # type: ignore[assignment]


def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="emulated-"))


def tiny(layers: int = 1, **sizes: Any) -> str:
    return str(random_janus(folder() / "policy", layers=layers, **sizes))


def assert_drawn_as_on_a_cpu(path: str, on: Any, thought: Any) -> None:
    settings = Sampling(thought=thought, max_thought_tokens=4, guidance_scale=3.0)
    found = on.sample(PROMPTS, settings, seed=1, decode=False)
    wanted = load_policy(path, device="cpu").sample(PROMPTS, settings, seed=1, decode=False)
    assert torch.equal(found.tokens.cpu(), wanted.tokens), thought
    assert torch.allclose(found.log_probs.cpu(), wanted.log_probs, atol=1e-4), thought


def every_phase_is_recorded() -> None:
    """Thoughts, the pictures after them, and pictures in parts."""
    warnings.simplefilter("error")
    path = tiny()
    policy: Any = load_policy(path, device="cuda")
    for thought, rows in (("inline", None), ("rewrite", None), ("off", 2)):
        policy.max_rows = rows
        assert_drawn_as_on_a_cpu(path, policy, thought)


def steps_of_the_second_gpu_are_recorded_there() -> None:
    """Also where the first is the current one."""
    warnings.simplefilter("error")
    path = tiny()
    policy: Any = load_policy(path, device="cuda:1")
    assert_drawn_as_on_a_cpu(path, policy, "inline")
    assert device.highest[1] > 0 == device.highest[0]


def a_run_computes_on_the_gpu_that_is_named() -> None:
    from thinkdraw.training.settings import TrainSettings
    from thinkdraw.training.world import World

    world = World(TrainSettings.model_validate({"recipe": "sft", "out": "run", "device": "cuda:1"}))
    assert world.device == torch.device("cuda", 1), f"on {world.device}"


def a_judge_never_works_on_the_stream_that_records() -> None:
    """In more phases than torch has streams."""
    record, numbers = cuda_graphs.CudaGraphs(GPU), torch.zeros(2, device=GPU)
    for _ in range(device.STREAMS_IN_POOL + 2):
        judge_across_the_beginning_of(record, numbers)


def judge_across_the_beginning_of(record: cuda_graphs.CudaGraphs, numbers: torch.Tensor) -> None:
    """Judging is asked for before a recording, and works and ends inside it."""
    recording = threading.Event()

    def reward(rollouts: Any) -> Any:
        recording.wait()
        return rollouts + 1

    with JudgingThread(cast(Any, reward), device=GPU) as judging:
        judged = judging.submit(cast(Any, numbers))

        def step() -> None:
            recording.set()
            judged.result()
            numbers.add_(1)

        record(step)()


class WatchedLock:
    """asked: set when a thread wants it."""

    def __init__(self) -> None:
        self.lock, self.asked = threading.Lock(), threading.Event()

    def __enter__(self) -> None:
        self.asked.set()
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def memory_that_runs_out_beside_a_recording_is_freed_after_it() -> None:
    from thinkdraw.policies.sampling.memory import shrink_to_fit

    watched: Any = WatchedLock()
    cuda_graphs.GRAPH_CAPTURE_LOCK = runtime_device.GRAPH_CAPTURE_LOCK = watched
    record, numbers, errors = cuda_graphs.CudaGraphs(GPU), torch.zeros(2, device=GPU), []

    def work(size: int) -> None:
        if size > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    def beside() -> None:
        try:
            shrink_to_fit(work, 2, "pictures")
        except Exception as error:
            errors.append(error)
        watched.asked.set()

    thread = threading.Thread(target=beside)

    def step() -> None:
        watched.asked.clear()
        thread.start()
        watched.asked.wait()
        numbers.add_(1)

    record(step)
    thread.join()
    assert not errors, errors


def adapters_are_merged_one_by_one() -> None:
    """A save takes room for one sum at a time, as the plan says."""
    from thinkdraw.planning.memory import merging_bytes
    from thinkdraw.policies.janus.shape import JanusShape
    from thinkdraw.policies.lora import LoraSettings

    lora = LoraSettings.model_validate({"rank": 4})
    policy: Any = load_policy(tiny(layers=4), device="cuda", dtype="bf16", lora=lora)
    before = device.alive[0]
    device.highest[0] = before
    policy.save(folder() / "saved")
    assert device.alive[0] == before
    taken, planned = device.highest[0] - before, merging_bytes(JanusShape(policy.model.config), lora)
    assert 0 < taken <= planned * 1.1, f"{taken} bytes taken, {planned} planned"


def pictures_are_decoded_in_the_memory_that_is_planned() -> None:
    from thinkdraw.policies.sampling.memory import picture_bytes

    policy: Any = load_policy(tiny(image_size=64), device="cuda", dtype="bf16", precision="bf16")
    codes = torch.zeros(8, policy.picture.num_tokens, dtype=torch.long, device=GPU)
    before = device.highest[0] = device.alive[0]
    policy.decode_tokens(codes)
    taken, planned = device.highest[0] - before, 8 * picture_bytes(policy.model.config, 2)
    assert taken <= planned * 1.1, f"{taken} bytes taken, {planned} planned"


def the_plans_seconds_count_what_moves_beside_products() -> None:
    """As traces say of 7B with adapters, 4 rows: 126 TFLOP in products, and 537 GB moved by other kernels.

    3.1 TFLOP of the products are the heads', in fp32: 3 · 2 · (193 · 102400 · 4096 + 576 · (16384 + 4096) · 4096) a row.
    """
    from thinkdraw.planning.memory import Load
    from thinkdraw.planning.seconds import BANDWIDTH_FRAC, GPUS, OPERATIONS_FRAC, learning_seconds
    from thinkdraw.planning.shapes import find_shape
    from thinkdraw.policies.lora import LoraSettings

    load = Load(
        shape=find_shape("janus-pro-7b"), dtype="bf16", precision="bf16", checkpointing=True, reference=False, offload=False,
        lora=LoraSettings.model_validate({"rank": 64}), shards=1, rows_per_rollout=1, micro_rows=4, prompt_tokens=30, thought_tokens=193,
    )  # fmt: skip
    gpu = GPUS["h100"]
    products = (122.9e12 / gpu.flops + 3.1e12 / gpu.fp32_flops) / OPERATIONS_FRAC
    others = 537e9 / (gpu.bandwidth * BANDWIDTH_FRAC)
    planned = learning_seconds(load, gpu, rollouts=4, more_forwards=0)
    assert abs(planned / (products + others) - 1) < 0.1, f"{planned:.3f} s planned, {products + others:.3f} s by traces"


def the_bench_runs() -> None:
    """bench/gpu.py, every row of it, on a tiny shape."""
    assert bench_rows() == ["draw", "think, draw", "GRPO step, LoRA"]


def the_bench_takes_a_step() -> None:
    assert bench_rows(drawing=False) == ["GRPO step, LoRA"]


def the_bench_draws() -> None:
    assert bench_rows(step=False) == ["draw", "think, draw"]


def bench_rows(drawing: bool = True, step: bool = True) -> list[str]:
    sys.path.insert(0, str(BENCH))
    gpu: Any = __import__("gpu")
    gpu.copy_bandwidth = lambda *_: 1e12  # copies gigabytes
    gpu.PROBED = 2
    sys.argv = ["gpu.py", "--shapes", "tiny", "--rollouts", "2", "--thought-tokens", "2", "--step-prompts", "1",
                "--limit-s", "0.1"]  # fmt: skip
    if not drawing:
        gpu.Drawing.measure = lambda *_: []
    if not step:
        gpu.grpo_step = lambda *_: {}
    rows: list[dict[str, Any]] = []
    shown = gpu.shown
    gpu.shown = lambda row: rows.append(row) or (shown(row) if "what" in row else "")
    try:
        gpu.main()
    except SystemExit:
        raise AssertionError([row["skipped"] for row in rows if "skipped" in row]) from None
    return [row["what"] for row in rows if "what" in row]
