"""The global generators: what follows from a seed, what is a process's own, and how they go on."""

import random

import numpy as np
import torch

from thinkdraw.runtime import checkpoint
from thinkdraw.runtime.generators import initial_weights, rng_state, seed_generators, seed_process, set_rng_state


def draw():
    return random.random(), np.random.normal(), random.gauss(0, 1), torch.rand(1).item()


def test_the_generators_continue_where_they_were(tmp_path):
    draw()  # leaves a cached second gaussian in both random and numpy
    checkpoint.save_trainer_state(tmp_path, rng_state())
    state = checkpoint.load_trainer_state(tmp_path)
    expected = draw()
    draw()
    set_rng_state(state)
    assert draw() == expected


def test_a_seed_sets_all_of_them_and_other_numbers_give_other_streams():
    streams = []
    for words in ((3,), (3,), (3, 1), (3, 2), (2**40,)):
        seed_generators(*words)
        streams.append(draw())
    assert streams[0] == streams[1]
    for values in zip(*streams[1:]):
        assert len(set(values)) == 4


def test_processes_draw_apart_and_begin_their_weights_alike():
    weights, drawn = set(), set()
    for rank in range(3):
        for step in (0, 20):
            seed_process(5, rank, step)
            drawn.add(draw())
            with initial_weights(5):
                weights.add(draw())
    assert len(weights) == 1 and len(drawn) == 6 and not weights & drawn


def test_weights_that_begin_at_random_later_on_leave_the_stream_as_it_was():
    seed_process(0, 0)
    expected = draw()
    seed_process(0, 0)
    with initial_weights(7):
        draw()
    assert draw() == expected
