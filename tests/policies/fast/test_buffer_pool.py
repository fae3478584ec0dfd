"""Memory that is used again is never in use twice, and does not pile up."""

import pytest
import torch
from tests.policies.suite import PROMPTS, SEEDS, assert_same_rollouts, sampling
from torch import Tensor

from thinkdraw.policies import load_policy
from thinkdraw.policies.fast import buffer_pool, cpu_operations
from thinkdraw.policies.fast.buffer_pool import BufferPool
from thinkdraw.policies.janus.tiny import random_janus


def take(memory: BufferPool, *shape: int) -> Tensor:
    return memory.take(shape, torch.float32)


def test_what_was_taken_is_used_again_after_a_reset_and_not_before():
    memory = BufferPool()
    first, second = take(memory, 4, 100), take(memory, 400)
    assert first.shape == (4, 100) and first.data_ptr() != second.data_ptr()
    memory.reset()
    again = {take(memory, 390).data_ptr(), take(memory, 300).data_ptr()}
    assert again == {first.data_ptr(), second.data_ptr()}
    assert take(memory, 10).data_ptr() not in again


def test_small_wishes_do_not_get_large_memory_and_what_is_outgrown_goes():
    memory = BufferPool()
    large, small = take(memory, 1000), take(memory, 100)
    memory.reset()
    assert take(memory, 120).data_ptr() not in (large.data_ptr(), small.data_ptr())
    assert take(memory, 1000).data_ptr() == large.data_ptr()
    memory.reset()
    take(memory, 120)
    memory.reset()
    assert sum(buffer.nbytes for buffer in memory._idle) == 480  # the large one had not been asked for again


def test_what_a_phase_may_keep_is_limited(monkeypatch: pytest.MonkeyPatch):
    memory = BufferPool()
    take(memory, 100), take(memory, 100)
    memory.trim()
    assert len(memory._idle) == 2
    monkeypatch.setattr(buffer_pool, "MAX_IDLE_BYTES", 700)
    take(memory, 100), take(memory, 100)
    memory.trim()
    assert memory._idle == []


def test_rollouts_in_used_memory_are_those_in_fresh_memory(tmp_path):
    policy = load_policy(str(random_janus(tmp_path / "policy")))
    settings = sampling("rewrite", guidance_scale=3.0)
    fresh = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    for buffer in cpu_operations._SPARE[0]._idle if cpu_operations._SPARE else ():
        buffer.fill_(255)  # NaN, read as numbers
    assert_same_rollouts(policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS), fresh)
