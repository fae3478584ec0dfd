"""Seeds, saves and restores the global generators of random, numpy and torch."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from thinkdraw.runtime.checkpoint import State


def seed_generators(*words: int) -> None:
    """Seed all global generators, every device's too, from these numbers.

    Other numbers give independent streams.
    """
    seed = words[0] if len(words) == 1 else int(np.random.SeedSequence(words).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    torch.manual_seed(seed)


def seed_initial_weights(seed: int) -> None:
    """Seed the generators for weights and adapters that begin at random.

    The seed is the same in every process of a run.
    """
    seed_generators(seed, 0, 0, 1)


def seed_process(seed: int, rank: int, step: int = 0) -> None:
    """Seed the generators for what a process draws in training, such as dropout.

    Each process of a run gets its own stream. step: optimiser steps done so far.
    """
    seed_generators(*((seed, rank, step) if rank or step else (seed,)))


def rng_state() -> State:
    """Take the generators' states, as a piece of trainer state.

    Of torch these are the states of the CPU and of every CUDA device.
    """
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (name, [int(key) for key in keys], int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
    }


def set_rng_state(state: State) -> None:
    """Restore what `rng_state` took.

    CUDA states are restored only where as many devices are present.
    """
    random.setstate(state["random"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Draw weights in the block as at the run's start, then restore the generators."""
    before = rng_state()
    seed_initial_weights(seed)
    try:
        yield
    finally:
        set_rng_state(before)
