"""How many rows and pictures are computed at once.

As many as fit by a formula, and half as many whenever memory still runs out.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.policies.sampling import control_group
from thinkdraw.runtime.device import free_cached_memory

T = TypeVar("T")
USABLE_FRAC = 0.85  # of free memory; the rest is for what the formulas leave out, such as fragmentation
MAX_ROWS = 512  # of the KV cache, even where more would fit
MAX_PICTURES = 64  # decoded at once, even where more would fit
CACHED_BYTES = 64e6  # of feature maps on a CPU: in batches of 16 a lab picture decodes twice as fast as in 64
LOGIT_BYTES = 24  # per row and vocabulary entry: logits, their log-softmax, noise and intermediate values
COLUMNS = 16  # the KV cache's columns are a multiple of it
FEATURE_MAPS = 4  # of full resolution, alive at once in the picture decoder
# Texts of plain RuntimeErrors, from parts of torch that have no OutOfMemoryError.
OUT_OF_MEMORY = ("DefaultCPUAllocator: ", "MPS backend out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def kv_bytes(config: Any, columns: int, itemsize: int) -> int:
    """Return the size of keys and values of one row with `columns` tokens.

    A rollout has two rows with guidance, else one.
    """
    text = config.text_config
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * text.num_hidden_layers * text.num_key_value_heads * width * columns * itemsize


def columns_of(context_tokens: int, thought_tokens: int, image_tokens: int) -> int:
    """Return the columns of the sampler's cache, for every token that a row reads.

    The number is rounded up to the alignment of attention on GPUs.
    """
    return -(-(context_tokens + thought_tokens + 1 + image_tokens) // COLUMNS) * COLUMNS


def row_bytes(config: Any, columns: int, itemsize: int) -> int:
    """Return the memory that one row needs while it is sampled."""
    return kv_bytes(config, columns, itemsize) + LOGIT_BYTES * config.text_config.vocab_size


def picture_bytes(config: Any, itemsize: int) -> int:
    """Return the memory that one picture needs while it is decoded.

    These are feature maps of full resolution.
    """
    vq = config.vq_config
    channels = vq.base_channels * max(vq.channel_multiplier[:2])
    return FEATURE_MAPS * channels * config.vision_config.image_size**2 * itemsize


def free_bytes(device: torch.device) -> int:
    """Return the memory that can still be allocated.

    What torch caches on a GPU is free too. On a CPU, a container's limit counts.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return int(min(psutil.virtual_memory().available, control_group.free_bytes()))


def pictures_at_once(config: Any, itemsize: int, device: torch.device) -> int:
    """Choose how many pictures to decode together.

    As many as fit, and on a CPU no more than its caches hold.
    """
    each = picture_bytes(config, itemsize)
    most = MAX_PICTURES if device.type != "cpu" else min(MAX_PICTURES, max(1, int(CACHED_BYTES / each)))
    return rows_that_fit(each, free_bytes(device), most)


def rows_that_fit(each: int, free: int, most: int) -> int:
    """Return how many items of `each` bytes fit into `free` bytes, 1 .. most.

    Where memory is the limit, it is a power of two, so that it rarely differs from run to run.
    """
    fitting = int(USABLE_FRAC * free / each)
    return most if fitting >= most else 1 << max(0, int(math.log2(max(1, fitting))))


def in_chunks(work: Callable[[Tensor], T], rows: Tensor, size: int) -> list[T]:
    """Run `work` on up to `size` rows at a time, and return its results.

    Whenever memory is not enough, it goes on from that row with half as many at a time.
    Raises UserError when memory does not hold a single row.
    """
    results, begin = [], 0
    while begin < len(rows) or not results:
        size = min(size, len(rows) - begin) or 1
        result, size = shrink_to_fit(lambda n, rest=rows[begin:]: work(rest[:n]), size, "rollouts at a time")
        results.append(result)
        begin += size
    return results


def shrink_to_fit(work: Callable[[int], T], size: int, what: str) -> tuple[T, int]:
    """Run `work(size)`, with half the size whenever memory is not enough.

    Returns its result and the size.
    what: the thing that size counts, for the warning.
    Raises UserError when memory is not enough for size 1.
    """
    while True:
        fits, result = _try(work, size)
        if fits:
            return result, size
        if size == 1:
            raise UserError(
                "out of memory with a single one at a time. `thinkdraw plan CONFIG` says what needs how much and which "
                "setting to change."
            )
        size, before = -(-size // 2), size
        warnings.warn(f"out of memory with {before} {what}: going on with {size}.", stacklevel=3)
        free_cached_memory()


def _try(work: Callable[[int], T], size: int) -> tuple[bool, Any]:
    """Return whether memory was enough, and the result of `work`.

    It is a function of its own, so that the failed attempt's tensors are freed on return; the traceback would hold
    them.
    """
    try:
        return True, work(size)
    except (MemoryError, RuntimeError) as error:  # torch's OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
        return False, None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an accelerator's memory, or the machine's, was not enough."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
