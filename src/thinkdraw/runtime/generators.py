"""The global random generators of random, numpy and torch: seeded from a run's seed, saved, and put back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from thinkdraw.runtime.checkpoint import State


def seed_generators(*words: int) -> None:
    """Seed all of them, every device's too, from these numbers; other numbers give independent streams."""
    seed = words[0] if len(words) == 1 else int(np.random.SeedSequence(words).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed % (1 << 32))
    torch.manual_seed(seed)


def seed_initial_weights(seed: int) -> None:
    """Seed them for weights that begin at random, adapters among them: the same in every process of a run."""
    seed_generators(seed, 0, 0, 1)


def seed_process(seed: int, rank: int, step: int = 0) -> None:
    """Seed them for what a process draws in training, dropout for one: another stream in each process of a run.

    step: optimiser steps that the run has behind it.
    """
    seed_generators(*((seed, rank, step) if rank or step else (seed,)))


def rng_state() -> State:
    """Take their states (torch's of the CPU and every CUDA device), as a piece of trainer state."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    return {
        "random": random.getstate(),
        "numpy": (name, [int(key) for key in keys], int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
    }


def set_rng_state(state: State) -> None:
    """Put back what `rng_state` took; CUDA states only where as many devices are present."""
    random.setstate(state["random"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Inside, weights begin as those of the run did; after it the generators go on as if nothing had been drawn."""
    before = rng_state()
    seed_initial_weights(seed)
    try:
        yield
    finally:
        set_rng_state(before)
