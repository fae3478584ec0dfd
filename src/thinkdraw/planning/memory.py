"""Bytes that one process needs, part by part, at the worst moment of sampling and of learning.

What autograd keeps follows from the operations of a Llama layer and of the scorer; `tests/planning/test_plan.py` holds the
coefficients to measurement.
"""

from dataclasses import dataclass

from thinkdraw.policies.lora import LoraSettings
from thinkdraw.policies.sampling.memory import MAX_PICTURES, columns_of
from thinkdraw.policies.shape import Shape, Weights

Parts = dict[str, float]
ITEMSIZE = {"fp32": 4, "bf16": 2}
# Bytes kept per token for the backward pass, by dtype of the weights and precision: of one layer per unit of hidden width
# and of MLP width, and outside of the layers per unit of hidden width.
FULL = {
    ("fp32", "fp32"): (40, 16, 32),
    ("fp32", "bf16"): (34, 8, 28),
    ("bf16", "fp32"): (24, 8, 18),
    ("bf16", "bf16"): (24, 8, 18),
}
# With adapters: frozen weights need no inputs kept; adapters do, in fp32 but for autocast, and their outputs, per rank.
LORA = {
    ("fp32", "fp32"): (32, 16, 20, 28),
    ("fp32", "bf16"): (28, 8, 14, 14),
    ("bf16", "fp32"): (40, 10, 8, 28),
    ("bf16", "bf16"): (28, 8, 8, 14),
}
MERGED = 8  # bytes per number of an adapter's product, as it is made, in fp32 twice
LOGIT_KEPT, LOGIT_AT_WORK, LOGIT_IN_CHUNKS, LOGIT_GUIDED = 13, 21, 25, 4  # bytes per logit of a head; the last besides
MLP_AT_WORK = 3  # tensors of the MLP's width in a layer's backward pass, besides what was kept


@dataclass(frozen=True)
class Load:
    """What one process does.

    shards: processes over which trained weights are spread. ways: rows per rollout in a pass of learning, 2 where
    guidance runs an unconditional one beside it. reference: a frozen copy is kept. offload: the optimiser is on the CPU.
    micro_rows: rollouts per pass.
    """

    shape: Shape
    dtype: str
    precision: str
    lora: LoraSettings | None
    checkpointing: bool
    reference: bool
    offload: bool
    shards: int
    ways: int
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


def resting(load: Load) -> Parts:
    """What is there all the time. Frozen weights are whole on every process; adapters and shards are fp32."""
    counts, size = load.weights, ITEMSIZE[load.dtype]
    trained = 4 if load.lora or load.shards > 1 else size
    found = {"weights": (counts.total - counts.trained) * size + counts.trained * trained / load.shards}
    if not load.offload:
        if trained == 2:
            found["fp32 copies"] = 4 * counts.trained
        found["optimiser state"] = 8 * counts.trained / load.shards
    if load.reference and load.lora is None:
        found["reference"] = counts.drawing * size
    return found


def sampling_row(load: Load) -> int:
    """What one row of a decoding batch needs; a rollout with guidance has two."""
    cached = 2 if load.precision == "bf16" else ITEMSIZE[load.dtype]
    return load.shape.row_bytes(columns_of(load.prompt_tokens, load.thought_tokens, load.image_tokens), cached)


def sampling(load: Load, rows: int, pictures: int) -> Parts:
    """With `rows` rows drawn at once, and then `pictures` decoded, whichever needs more."""
    found = resting(load)
    if load.shards > 1:
        found["gathered weights"] = load.weights.trained * ITEMSIZE[load.dtype]
    shape, size = load.shape, ITEMSIZE[load.dtype]
    embedded_codes = shape.codes * shape.hidden * size
    decoding = min(pictures, MAX_PICTURES) * shape.picture_bytes(size)
    drawing = rows * sampling_row(load) + embedded_codes
    return found | ({"keys and values": drawing} if drawing > decoding else {"decoding pictures": decoding})


def learning(load: Load) -> Parts:
    """At the worst moment of a forward and backward pass; the optimiser's step, in place, needs less."""
    counts = load.weights
    found = resting(load)
    if not load.offload:  # else they go one by one as they are made
        found["gradients"] = 4 * counts.trained / load.shards
    if load.shards > 1:
        layers = counts.adapters or 2 * counts.layers / load.shape.layers
        others = 0 if load.lora else counts.drawing - counts.layers
        found["gathered weights"] = (layers + others) * ITEMSIZE[load.dtype]
    return found | update(load)


def merging(shape: Shape, lora: LoraSettings | None) -> float:
    """What a save takes beside what rests: the largest adapted weight, for one is merged at a time."""
    return MERGED * shape.hidden * shape.mlp if lora else 0


def saving(load: Load) -> Parts:
    """While a checkpoint is written, of weights that are whole."""
    gathered = load.weights.trained * ITEMSIZE[load.dtype] if load.shards > 1 else 0
    return resting(load) | {"gathered weights": gathered, "merging adapters": merging(load.shape, load.lora)}


def update(load: Load) -> Parts:
    """Activations and logits at the worst moment of a forward and backward pass."""
    moments = [_in_the_image_head(load), _in_the_text_head(load), *([_in_a_layer(load)] if load.checkpointing else [])]
    return max(moments, key=lambda parts: sum(parts.values()))


def _tokens(load: Load) -> int:
    return load.micro_rows * load.ways * load.row_tokens


def _layer(load: Load) -> float:
    """What one layer keeps."""
    shape, key = load.shape, (load.dtype, load.precision)
    hidden, mlp, _, rank = LORA[key] if load.lora else (*FULL[key], 0)
    bytes_per_token = hidden * shape.hidden + mlp * shape.mlp + 8 + 4 * shape.heads
    return _tokens(load) * (bytes_per_token + rank * (load.lora.rank if load.lora else 0))


def _casts(load: Load) -> float:
    """bf16 copies of fp32 weights that autocast makes of the layers and keeps for the backward pass."""
    return 2 * load.weights.layers if (load.dtype, load.precision) == ("fp32", "bf16") else 0


def _kept(load: Load) -> float:
    """What the layers keep until the backward pass: everything, or with checkpointing their inputs."""
    shape = load.shape
    if load.checkpointing:
        return shape.layers * _tokens(load) * shape.hidden * ITEMSIZE[load.dtype]
    return shape.layers * _layer(load) + _casts(load)


def _outside(load: Load) -> float:
    width = (LORA if load.lora else FULL)[load.dtype, load.precision][2]
    return _tokens(load) * width * load.shape.hidden


def _logits(load: Load) -> tuple[int, int]:
    """How many logits the text head has in a pass, and how many the image head."""
    text = load.micro_rows * load.thought_tokens * load.shape.vocabulary
    return text, load.micro_rows * load.image_tokens * load.shape.codes


def _at_work(logits: int, ways: int, at_once: float) -> float:
    each = (LOGIT_IN_CHUNKS if logits > at_once else LOGIT_AT_WORK) + LOGIT_GUIDED * (ways - 1)
    return each * min(logits, at_once)


def _in_the_image_head(load: Load) -> Parts:
    text, image = _logits(load)
    waiting = LOGIT_KEPT * text if text <= load.shape.chunk_logits else 0
    return {
        "activations": _kept(load) + _outside(load),
        "logits": waiting + _at_work(image, load.ways, load.shape.chunk_logits),
    }


def _in_the_text_head(load: Load) -> Parts:
    """The gradient of the head's weight is there twice until it is handed over: as it was made, and in fp32."""
    text, _ = _logits(load)
    head = 0 if load.lora else load.weights.text_head * ITEMSIZE[load.dtype]
    handing_over = 0 if load.lora or load.dtype == "fp32" else load.weights.text_head * 4
    return {
        "activations": _kept(load) + _outside(load),
        "logits": head + max(handing_over, _at_work(text, 1, load.shape.chunk_logits)),
    }


def _in_a_layer(load: Load) -> Parts:
    """Backward through a layer whose activations were made again."""
    # Gradients of adapters' inputs are fp32.
    size = 4 if load.lora else 2 if load.precision == "bf16" else ITEMSIZE[load.dtype]
    working = MLP_AT_WORK * size * load.shape.mlp * _tokens(load)
    return {"activations": _kept(load) + _layer(load) + _casts(load) / load.shape.layers + working}
