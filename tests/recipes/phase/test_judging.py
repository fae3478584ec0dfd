import dataclasses
import threading

import pytest
import torch
from tests.serve.serving import Brightness, noise

from thinkdraw.errors import UserError
from thinkdraw.recipes.phase.judging import JudgingThread, draw_and_judge, judge
from thinkdraw.rewards.combined import CombinedReward
from thinkdraw.rewards.user_rewards import as_reward


def test_the_answers_are_those_of_judging_at_once_in_the_order_of_the_chunks():
    chunks = [noise(4, seed=seed) for seed in range(3)]
    found = draw_and_judge(iter(chunks), as_reward(Brightness()))
    assert [judged.rollouts for judged in found.chunks] == chunks
    for judged, rollouts in zip(found.chunks, chunks):
        alone = judge(as_reward(Brightness()), rollouts)
        assert torch.equal(judged.verdicts.rewards, alone.verdicts.rewards) and bool(judged.verdicts.applies.all())
        assert torch.equal(judged.verdicts.parts["dark"], alone.verdicts.parts["dark"])
    assert found.seconds_judge == sum(judged.seconds for judged in found.chunks)


def test_a_chunk_is_judged_while_the_next_is_drawn():
    # Each waits for the other: drawing the second chunk ends only when the first is being judged, and that only when
    # the second is being drawn. One after the other would wait for ever.
    judging, drawing = threading.Event(), threading.Event()

    class Waiting(Brightness):
        def __call__(self, rollouts):
            judging.set()
            assert drawing.wait(20)
            return super().__call__(rollouts)

    def draw():
        yield noise(2)
        drawing.set()
        assert judging.wait(20)
        yield noise(2, seed=1)

    assert len(draw_and_judge(draw(), as_reward(Waiting())).chunks) == 2


def test_pictures_are_decoded_where_they_are_judged_while_the_next_chunk_is_drawn():
    threads, drawing = [], threading.Event()
    pictures = [noise(2, seed=seed).pictures for seed in range(2)]

    def draw():
        for seed in range(2):
            yield dataclasses.replace(noise(2, seed=seed), pictures=None)
            drawing.set()

    def decode(rollouts):
        assert drawing.wait(20)  # until the next chunk has been asked for
        threads.append(threading.current_thread())
        return dataclasses.replace(rollouts, pictures=pictures[len(threads) - 1])

    found = draw_and_judge(draw(), as_reward(Brightness()), decode=decode)
    assert threading.main_thread() not in threads and len(threads) == 2
    for seed, judged in enumerate(found.chunks):
        assert torch.equal(judged.verdicts.rewards, Brightness()(noise(2, seed=seed)))
        assert judged.rollouts.pictures is pictures[seed]


def test_on_the_same_cores_a_chunk_is_judged_before_the_next_is_drawn():
    happened = []

    class Noting(Brightness):
        def __call__(self, rollouts):
            happened.append("judged")
            return super().__call__(rollouts)

    def draw():
        for seed in range(2):
            happened.append("drawn")
            yield noise(2, seed=seed)

    found = draw_and_judge(draw(), as_reward(Noting()), in_parallel=False)
    # The component asks once more per chunk.
    assert happened == ["drawn", "judged", "judged"] * 2
    assert found.seconds_wait == found.seconds_judge == sum(chunk.seconds for chunk in found.chunks)


def test_a_reward_is_elsewhere_where_it_or_what_it_asks_is():
    class Endpoint:
        elsewhere = True

    class Asking(Brightness):
        def __init__(self, judge: object) -> None:
            super().__init__()
            self.judge = judge

    here, there = as_reward(Brightness()), as_reward(Asking(Endpoint()))
    assert not here.elsewhere and not as_reward(Asking(Brightness())).elsewhere and there.elsewhere
    assert CombinedReward({"here": here, "there": there}).elsewhere and not CombinedReward({"here": here}).elsewhere


def test_batches_are_judged_one_at_a_time():
    busy = threading.Lock()

    class Alone(Brightness):
        def __call__(self, rollouts):
            assert busy.acquire(blocking=False)
            try:
                return super().__call__(rollouts)
            finally:
                busy.release()

    with JudgingThread(as_reward(Alone(seconds=0.005))) as judging:
        futures = [judging.submit(noise(2, seed=seed)) for seed in range(5)]
    assert all(len(future.result().verdicts) == 2 for future in futures)


def test_a_reward_that_refuses_is_heard_of_and_nothing_more_is_drawn():
    drawn = []

    class Refusing(Brightness):
        def __call__(self, rollouts):
            raise UserError("no questions")

    def draw():
        for seed in range(100):
            drawn.append(seed)
            yield noise(2, seed=seed)
            threading.Event().wait(0.01)

    with pytest.raises(UserError, match="no questions"):
        draw_and_judge(draw(), as_reward(Refusing()))
    assert len(drawn) < 100


def test_an_error_while_drawing_drops_what_waits_for_the_judge():
    begun, gate = threading.Event(), threading.Event()

    class Held(Brightness):
        def __call__(self, rollouts):
            begun.set()
            assert gate.wait(20)
            return super().__call__(rollouts)

    with pytest.raises(RuntimeError, match="out of memory"), JudgingThread(as_reward(Held())) as judging:
        first, second = judging.submit(noise(2)), judging.submit(noise(2, seed=1))
        assert begun.wait(20)
        second.add_done_callback(lambda _: gate.set())  # the first is let go when the second is dropped
        raise RuntimeError("out of memory")
    assert second.cancelled() and len(first.result().verdicts) == 2


def test_judging_needs_no_gradients():
    class Asking(Brightness):
        def __call__(self, rollouts):
            assert not torch.is_grad_enabled()
            return super().__call__(rollouts)

    draw_and_judge(iter([noise(2)]), as_reward(Asking()))
