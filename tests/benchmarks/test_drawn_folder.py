"""Drawing into a folder: seeds by benchmark, prompt and index; rows for every picture; stopped anywhere, it goes on."""

import pytest
from tests.benchmarks.stub import StubPolicy

from thinkdraw.benchmarks.drawing import picture_seed
from thinkdraw.benchmarks.drawn_folder import draw_into_folder, drawn_files
from thinkdraw.benchmarks.latency import latency
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.types import Sampling

EXAMPLES = prompt_set("geneval", "test", 6)
PROMPTS = {i: e.prompt for i, e in enumerate(EXAMPLES)}
SETTINGS = {"benchmark": "geneval", "revision": "stub"}


def draw(folder, policy=None, prompts=PROMPTS, settings=SETTINGS, **more):
    more = {"samples": 2, "seed": 0, "chunk": 4} | more
    return draw_into_folder(folder, policy or StubPolicy(EXAMPLES), prompts, settings, Sampling(), **more)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.png"))}


def test_every_picture_has_a_file_and_a_row_with_its_own_seed(tmp_path):
    rows = draw(tmp_path)
    assert [(r["prompt_index"], r["sample"]) for r in rows] == [(i, k) for i in range(6) for k in range(2)]
    assert [r["seed"] for r in rows] == [picture_seed("geneval", PROMPTS[i], k, 0) for i in range(6) for k in range(2)]
    assert len(files(tmp_path)) == 12 and drawn_files(tmp_path, PROMPTS, 2).keys() == {
        (i, k) for i in range(6) for k in range(2)
    }
    assert (
        rows[0]["thought"] and rows[0]["text_tokens"] == 1 and rows[0]["image_tokens"] == 4 and rows[0]["seconds"] > 0
    )


def test_pictures_do_not_depend_on_the_chunk_nor_on_the_other_prompts(tmp_path):
    draw(tmp_path / "a", chunk=2)
    draw(tmp_path / "b", chunk=100)
    draw(tmp_path / "c", prompts={i: PROMPTS[i] for i in (4, 2)})
    a, c = files(tmp_path / "a"), files(tmp_path / "c")
    assert a == files(tmp_path / "b") and len(c) == 4 and all(a[name] == data for name, data in c.items())


class Stops(StubPolicy):
    def sample(self, *args, **kwargs):
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return super().sample(*args, **kwargs)


def test_a_stopped_drawing_goes_on_without_drawing_again(tmp_path):
    whole = draw(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path / "parts", Stops(EXAMPLES))
    policy = StubPolicy(EXAMPLES)
    parts = draw(tmp_path / "parts", policy)
    assert policy.drawn == 4  # six prompts, two of them per chunk, two chunks done
    timeless = [[{k: v for k, v in row.items() if k != "seconds"} for row in rows] for rows in (whole, parts)]
    assert timeless[0] == timeless[1] and files(tmp_path / "whole") == files(tmp_path / "parts")


def test_a_prompt_whose_rows_were_cut_off_is_drawn_again(tmp_path):
    draw(tmp_path)
    log = tmp_path / "drawn.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:11]) + lines[11][:20])
    policy = StubPolicy(EXAMPLES)
    assert len(draw(tmp_path, policy)) == 12 and policy.drawn == 2


def test_a_folder_of_another_drawing_is_refused(tmp_path):
    draw(tmp_path)
    with pytest.raises(UserError, match="revision='stub', not 'other'"):
        draw(tmp_path, settings={**SETTINGS, "revision": "other"})


def test_latency_counts_tokens_with_and_without_a_thought():
    class Thinks(StubPolicy):
        def sample(self, prompts, sampling, **more):
            rollouts = super().sample(prompts, sampling, **more)
            if sampling.thought == "off":
                rollouts.mask[:, 0] = False
            return rollouts

    policy = Thinks(EXAMPLES)
    found = latency(policy, list(PROMPTS.values()), Sampling(thought="off"), batch=4)
    assert list(found) == ["inline", "off"] and policy.batches == [4, 4, 2] * 2  # the first batch twice, to warm up
    assert (found["inline"].text_tokens, found["off"].text_tokens, found["off"].image_tokens) == (1, 0, 4)
    assert (found["off"].pictures, found["off"].batch) == (6, 4) and found["off"].seconds > 0
