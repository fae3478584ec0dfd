"""Bytes that one process needs, by part, at the worst moments of a run.

What autograd keeps follows from the operations of a Llama layer and of the heads. `tests/planning/test_plan.py` compares the
coefficients with measurements.
"""

from dataclasses import dataclass

from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.sampling.memory import MAX_PICTURES, columns_of
from thinkdraw.policies.shape import Shape, Weights

Parts = dict[str, float]
ITEMSIZE = {"fp32": 4, "bf16": 2}
# Bytes kept per token for the backward pass, by (dtype of the weights, precision): in a layer per unit of hidden width and
# per unit of MLP width, and outside the layers per unit of hidden width.
FULL = {
    ("fp32", "fp32"): (40, 16, 32),
    ("fp32", "bf16"): (34, 8, 28),
    ("bf16", "fp32"): (24, 8, 18),
    ("bf16", "bf16"): (24, 8, 18),
}
# With adapters: frozen weights need no inputs kept. Adapters do, in fp32 unless autocast, and also their outputs: the last
# number, per unit of rank.
LORA = {
    ("fp32", "fp32"): (32, 16, 20, 28),
    ("fp32", "bf16"): (28, 8, 14, 14),
    ("bf16", "fp32"): (40, 10, 8, 28),
    ("bf16", "bf16"): (28, 8, 8, 14),
}
MERGED = 8  # bytes per number while an adapter's product is computed: fp32, twice
# Bytes per logit of a head: kept for the backward pass, at the worst moment, and the same in chunks.
LOGIT_KEPT, LOGIT_PEAK, LOGIT_PEAK_IN_CHUNKS = 13, 21, 25
MLP_PEAK = 3  # tensors of the MLP's width in a layer's backward pass, besides what was kept


@dataclass(frozen=True)
class Load:
    """What one process does, as far as memory and time depend on it.

    shards: processes over which trained weights are spread. rows_per_rollout: in a pass of learning; 2 with guidance, which
    has an unconditional row too. reference: a frozen copy is kept. offload: the optimiser is on the CPU. micro_rows:
    rollouts per pass.
    """

    shape: Shape
    dtype: str
    precision: str
    lora: LoraSettings | None
    checkpointing: bool
    reference: bool
    offload: bool
    shards: int
    rows_per_rollout: int
    micro_rows: int
    prompt_tokens: int
    thought_tokens: int

    @property
    def weights(self) -> Weights:
        return self.shape.weights(self.lora)

    @property
    def image_tokens(self) -> int:
        return self.shape.image_tokens

    @property
    def row_tokens(self) -> int:
        return self.prompt_tokens + self.thought_tokens + self.image_tokens


def resting_bytes(load: Load) -> Parts:
    """Compute what is in memory all the time.

    Frozen weights are whole on every process; adapters and shards are fp32.
    """
    counts, size = load.weights, ITEMSIZE[load.dtype]
    trained = 4 if load.lora or load.shards > 1 else size
    parts = {"weights": (counts.total - counts.trained) * size + counts.trained * trained / load.shards}
    if not load.offload:
        if trained == 2:
            parts["fp32 copies"] = 4 * counts.trained
        parts["optimiser state"] = 8 * counts.trained / load.shards
    if load.reference and load.lora is None:
        parts["reference"] = counts.drawing * size
    return parts


def sampling_row_bytes(load: Load) -> int:
    """Compute what a row of a decoding batch needs; a rollout with guidance has two."""
    cached = 2 if load.precision == "bf16" else ITEMSIZE[load.dtype]
    return load.shape.row_bytes(columns_of(load.prompt_tokens, load.thought_tokens, load.image_tokens), cached)


def sampling_bytes(load: Load, rows: int, pictures: int) -> Parts:
    """Compute the need of sampling: `rows` drawn at once, then `pictures` decoded.

    Whichever needs more counts.
    """
    parts = resting_bytes(load)
    if load.shards > 1:
        parts["gathered weights"] = load.weights.trained * ITEMSIZE[load.dtype]
    shape, size = load.shape, ITEMSIZE[load.dtype]
    embedded_codes = shape.codes * shape.hidden * size
    decoding = min(pictures, MAX_PICTURES) * shape.picture_bytes(size)
    drawing = rows * sampling_row_bytes(load) + embedded_codes
    if load.dtype != "fp32":  # the sampler keeps fp32 copies of the heads
        parts["fp32 heads"] = 4 * (load.weights.text_head + load.weights.image_head)
    return parts | ({"keys and values": drawing} if drawing > decoding else {"decoding pictures": decoding})


def learning_bytes(load: Load) -> Parts:
    """Compute the need of learning, at the worst moment of its passes.

    The optimiser's step works in place and needs less.
    """
    counts = load.weights
    parts = resting_bytes(load)
    if not load.offload:  # offloaded gradients leave one by one as they are computed
        parts["gradients"] = 4 * counts.trained / load.shards
    if load.shards > 1:
        layers = counts.adapters or 2 * counts.layers / load.shape.layers
        others = 0 if load.lora else counts.drawing - counts.layers
        parts["gathered weights"] = (layers + others) * ITEMSIZE[load.dtype]
    return parts | update_bytes(load)


def merging_bytes(shape: Shape, lora: LoraSettings | None) -> float:
    """Compute what merging adapters takes while a checkpoint is saved.

    One weight is merged at a time, so the largest counts.
    """
    return MERGED * shape.hidden * shape.mlp if lora else 0


def saving_bytes(load: Load) -> Parts:
    """Compute the need of saving a checkpoint, for which weights are gathered."""
    gathered = load.weights.trained * ITEMSIZE[load.dtype] if load.shards > 1 else 0
    return resting_bytes(load) | {
        "gathered weights": gathered,
        "merging adapters": merging_bytes(load.shape, load.lora),
    }


def update_bytes(load: Load) -> Parts:
    """Compute activations and logits at the worst moment of the passes."""
    moments = [_in_the_image_head(load), _in_the_text_head(load), *([_in_a_layer(load)] if load.checkpointing else [])]
    return max(moments, key=lambda parts: sum(parts.values()))


def _tokens(load: Load) -> int:
    return load.micro_rows * load.rows_per_rollout * load.row_tokens


def _kept_by_a_layer(load: Load) -> float:
    """Compute what one layer keeps for the backward pass."""
    shape, key = load.shape, (load.dtype, load.precision)
    hidden, mlp, _, rank = LORA[key] if load.lora else (*FULL[key], 0)
    bytes_per_token = hidden * shape.hidden + mlp * shape.mlp + 8 + 4 * shape.heads
    return _tokens(load) * (bytes_per_token + rank * (load.lora.rank if load.lora else 0))


def _casts(load: Load) -> float:
    """Compute autocast's bf16 copies of fp32 weights, kept for the backward pass."""
    return 2 * load.weights.layers if (load.dtype, load.precision) == ("fp32", "bf16") else 0


def _kept_by_layers(load: Load) -> float:
    """Compute what all layers keep for the backward pass.

    This is everything, or with gradient checkpointing their inputs.
    """
    shape = load.shape
    if load.checkpointing:
        return shape.layers * _tokens(load) * shape.hidden * ITEMSIZE[load.dtype]
    return shape.layers * _kept_by_a_layer(load) + _casts(load)


def _kept_outside_layers(load: Load) -> float:
    width = (LORA if load.lora else FULL)[load.dtype, load.precision][2]
    return _tokens(load) * width * load.shape.hidden


def _logits(load: Load) -> tuple[int, int]:
    """Count the logits of the text head and of the image head in a pass."""
    text = load.micro_rows * load.thought_tokens * load.shape.vocabulary
    return text, load.micro_rows * load.image_tokens * load.shape.codes


def _peak_of_logits(logits: int, at_once: float) -> float:
    return (LOGIT_PEAK_IN_CHUNKS if logits > at_once else LOGIT_PEAK) * min(logits, at_once)


def _cast_of_a_head(load: Load, weights: int) -> float:
    """Compute the need of a head's fp32 product in its backward pass.

    Weights of another dtype are copied, and so is their gradient before it gets their dtype.
    """
    if load.dtype == "fp32":
        return 0
    return weights * (4 if load.lora else 4 + 4)


def _in_the_image_head(load: Load) -> Parts:
    text, image = _logits(load)
    at_once = load.shape.chunk_logits
    # Where the text head's logits are not computed again, its copy waits for them too.
    waiting = LOGIT_KEPT * text + (0 if load.dtype == "fp32" else 4 * load.weights.text_head) if text <= at_once else 0
    return {
        "activations": _kept_by_layers(load) + _kept_outside_layers(load),
        "logits": waiting + _cast_of_a_head(load, load.weights.image_head) + _peak_of_logits(image, at_once),
    }


def _in_the_text_head(load: Load) -> Parts:
    """Compute the need of the text head's backward pass.

    The gradient of the head's weight exists twice until it is moved to the master: as computed, and in fp32.
    """
    text, _ = _logits(load)
    head = 0 if load.lora else load.weights.text_head * ITEMSIZE[load.dtype]
    handing_over = 0 if load.lora or load.dtype == "fp32" else load.weights.text_head * 4
    computing = _cast_of_a_head(load, load.weights.text_head) + _peak_of_logits(text, load.shape.chunk_logits)
    return {
        "activations": _kept_by_layers(load) + _kept_outside_layers(load),
        "logits": head + max(handing_over, computing),
    }


def _in_a_layer(load: Load) -> Parts:
    """Compute the need of a layer's backward pass with recomputed activations."""
    # Gradients of adapters' inputs are fp32.
    size = 4 if load.lora else 2 if load.precision == "bf16" else ITEMSIZE[load.dtype]
    working = MLP_PEAK * size * load.shape.mlp * _tokens(load)
    return {"activations": _kept_by_layers(load) + _kept_by_a_layer(load) + _casts(load) / load.shape.layers + working}
