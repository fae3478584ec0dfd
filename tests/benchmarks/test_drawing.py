import pytest
from tests.benchmarks.stub import StubPolicy

from thinkdraw.benchmarks.drawing import draw_benchmark, picture_seed, read_rows, write_rows
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.types import Prompt, Sampling

EXAMPLES = prompt_set("geneval", "test", 10)
PROMPTS = [example.prompt for example in EXAMPLES]


def drawn(policy, **more):
    return [d for part in draw_benchmark(policy, PROMPTS, Sampling(), 3, **more) for d in part]


def test_every_prompt_is_drawn_so_often_in_order():
    assert [(d.prompt_index, d.sample) for d in drawn(StubPolicy(EXAMPLES))] == [
        (i, k) for i in range(10) for k in range(3)
    ]


def test_pictures_do_not_depend_on_the_chunk():
    few, many = (drawn(StubPolicy(EXAMPLES), chunk=chunk) for chunk in (3, 1000))
    assert all((a.picture == b.picture).all() and a.thought == b.thought for a, b in zip(few, many))


def test_chunks_bound_the_batch_and_hold_whole_prompts():
    policy = StubPolicy(EXAMPLES)
    drawn(policy, chunk=8)
    assert policy.batches == [6, 6, 6, 6, 6]  # two prompts of three samples fit into 8
    drawn(policy := StubPolicy(EXAMPLES), chunk=1)
    assert policy.batches == [3] * 10


def test_seeds_differ_by_benchmark_prompt_sample_and_seed_and_fit_63_bits():
    a, b = Prompt("x", "a"), Prompt("x", "b")
    places = [("lab", a, 0, 0), ("lab", b, 0, 0), ("lab", a, 1, 0), ("lab", a, 0, 1), ("other", a, 0, 0)]
    seeds = [picture_seed(*place) for place in places]
    assert len(set(seeds)) == 5 and all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [picture_seed(*place) for place in places]


def test_pictures_with_a_row_are_not_drawn_again(tmp_path):
    rows = [{"prompt_id": PROMPTS[i].id, "sample": k} for i in range(4) for k in range(3)]
    write_rows(tmp_path, rows)
    assert read_rows(tmp_path) == rows
    policy = StubPolicy(EXAMPLES)
    assert {d.prompt_index for d in drawn(policy, folder=tmp_path)} == set(range(4, 10))
    assert policy.drawn == 18


def test_progress_counts_pictures_that_are_there_already(tmp_path):
    write_rows(tmp_path, [{"prompt_id": PROMPTS[0].id, "sample": k} for k in range(3)])
    calls = []
    drawn(StubPolicy(EXAMPLES), folder=tmp_path, chunk=15, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(15, 30), (30, 30)]


def test_a_damaged_results_file_is_named(tmp_path):
    (tmp_path / "results.jsonl").write_text('{"a"')
    with pytest.raises(UserError, match=r"results\.jsonl line 1 is damaged"):
        read_rows(tmp_path)
