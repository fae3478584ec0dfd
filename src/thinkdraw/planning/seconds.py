"""Seconds that one process needs, from operations and bytes; without judges'."""

from dataclasses import dataclass

from thinkdraw.planning.memory import ITEMSIZE, Load

GIB = 1 << 30


@dataclass(frozen=True)
class Gpu:
    """Memory in bytes, bytes per second, and operations per second.

    flops: bf16, dense. fp32_flops: without tensor cores; heads multiply in fp32.
    """

    memory: int
    bandwidth: float
    flops: float
    fp32_flops: float


# NVIDIA's data sheets of each product; with sparsity they advertise twice the bf16 operations. fp32 without TF32.
GPUS = {
    "a100-40": Gpu(40 * GIB, 1.555e12, 312e12, 19.5e12),
    "a100-80": Gpu(80 * GIB, 2.039e12, 312e12, 19.5e12),
    "h100": Gpu(80 * GIB, 3.35e12, 989e12, 67e12),
    "h100-pcie": Gpu(80 * GIB, 2.0e12, 756e12, 51e12),
    "h200": Gpu(141 * 10**9, 4.8e12, 989e12, 67e12),
    "l4": Gpu(24 * GIB, 0.3e12, 121e12, 30.3e12),
    "l40s": Gpu(48 * GIB, 0.864e12, 362e12, 91.6e12),
    "rtx4090": Gpu(24 * GIB, 1.008e12, 165e12, 82.6e12),
}
# What an offloaded optimiser waits for, bytes per second: PCIe 4.0 with 16 lanes, and a server's memory.
LINK_BANDWIDTH, HOST_BANDWIDTH = 25e9, 100e9
# Assumptions: the shares of the data sheet's figures that are reached; and the time in which the two dozen kernels of a
# layer start and end in a CUDA graph, which no decoding step of a layer can undercut.
OPERATIONS_FRAC, BANDWIDTH_FRAC, LAYER_START_S = 0.4, 0.6, 5e-5
# Bytes that learning's kernels move beside the products (norms, activations, residual sums, casts; with adapters their own),
# per token, layer and unit of hidden width: forward and backward pass, and each further forward. Then per logit of a head.
# From traces of both shapes of Janus-Pro with bf16 weights, which they meet within 2 %; `tests/planning/test_plan.py`.
FULL_MOVED, LORA_MOVED, LOGIT_MOVED = (570, 144), (953, 345), 219


def sampling_seconds(load: Load, gpu: Gpu, rollouts: int, at_once: int, rows_per_rollout: int) -> float:
    """Estimate the seconds of sampling, with every thought at its budget.

    `at_once` rollouts are drawn together, in as many rounds as that takes.
    While thoughts are written there is no unconditional row yet, so that more rollouts fit at once.
    """
    counts, size = load.weights, ITEMSIZE[load.dtype]
    cached = 2 if load.precision == "bf16" else size
    thinking = rollouts if rollouts <= at_once else min(rollouts, at_once * rows_per_rollout)
    writing = (thinking, 1, load.thought_tokens, counts.text_head, load.prompt_tokens + load.thought_tokens / 2)
    drawing = (at_once, rows_per_rollout, load.image_tokens, counts.image_head, load.row_tokens - load.image_tokens / 2)
    seconds = 0.0
    for together, rows_each, steps, head, columns in (writing, drawing):
        rounds = -(-rollouts // together)
        width = -(-rollouts // rounds) * rows_each
        read = counts.layers * size + 4 * head + width * load.shape.kv_bytes(round(columns), cached)
        computing = _computed(2 * counts.layers * width, 2 * head * width, gpu)
        starting = LAYER_START_S * load.shape.layers
        seconds += rounds * steps * max(_moved(read, gpu), computing, starting)
    return seconds


def learning_seconds(load: Load, gpu: Gpu, rollouts: int, more_forwards: float, steps: int = 1) -> float:
    """Estimate the seconds of a forward and backward pass per rollout, and the steps.

    more_forwards: further forward passes without gradient, per rollout.
    """
    counts, shape = load.weights, load.shape
    tokens = load.rows_per_rollout * load.row_tokens
    attention = 2 * shape.layers * shape.hidden * load.row_tokens * tokens  # causal: half of all pairs
    layers = 2 * counts.layers * tokens + attention
    heads = 2 * (counts.text_head * load.thought_tokens + counts.image_head * load.image_tokens * load.rows_per_rollout)
    backward = 1 if load.lora else 2  # frozen weights need no gradient, only their inputs do
    passes = 1 + backward + more_forwards
    computing = _computed(rollouts * (passes + load.checkpointing) * layers, rollouts * (passes + 1) * heads, gpu)
    at_work = computing + _moved(rollouts * moved_beside_products(load, more_forwards), gpu)
    step = 6 * 4 * counts.trained / load.shards  # weight, gradient and two moments read, weight and moments written
    if not load.offload:
        return at_work + steps * _moved(step, gpu)
    size, num_passes = 4 if load.lora else ITEMSIZE[load.dtype], -(-rollouts // load.micro_rows)
    crossing = (num_passes + steps) * size * counts.trained  # gradients of each pass, and each step's weights back
    summing = num_passes * (size + 4 * 4) * counts.trained  # read, written in fp32, read with the sum, and that written
    return at_work + crossing / LINK_BANDWIDTH + (summing + steps * step) / HOST_BANDWIDTH


def moved_beside_products(load: Load, more_forwards: float) -> float:
    """Compute the bytes that kernels other than matrix products move for one rollout.

    In its forward and backward pass, and in further forward passes without gradient.
    """
    shape = load.shape
    once, again = LORA_MOVED if load.lora else FULL_MOVED
    passes = once + again * (load.checkpointing + more_forwards)
    logits = load.thought_tokens * shape.vocabulary + load.rows_per_rollout * load.image_tokens * shape.codes
    return load.rows_per_rollout * load.row_tokens * shape.layers * shape.hidden * passes + LOGIT_MOVED * logits


def _moved(count: float, gpu: Gpu) -> float:
    return count / (gpu.bandwidth * BANDWIDTH_FRAC)


def _computed(layers: float, heads: float, gpu: Gpu) -> float:
    return (layers / gpu.flops + heads / gpu.fp32_flops) / OPERATIONS_FRAC
