"""Rows of SFT examples: the forms they come in, what is refused in them, and the line that counts them."""

import json

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.training.data import DataSettings, load_examples


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return load_policy(random_janus(tmp_path_factory.mktemp("policy")))


@pytest.fixture
def load(policy, tmp_path):
    """Reads examples of a file, without a cache of an earlier one."""
    taken = iter(range(99))

    def examples(path, **settings):
        cache = tmp_path / f"cache-{next(taken)}" / "codes.safetensors"
        return load_examples(DataSettings(source=str(path), **settings), policy, 24, cache)

    return examples


def picture(policy, value):
    shape = (policy.picture.height, policy.picture.width, 3)
    return Image.fromarray(np.full(shape, value, dtype=np.uint8))


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def row(policy, thought="a thought", **more):
    return {"prompt": "a ring", "thought": thought, "image_tokens": [0] * policy.picture.num_tokens} | more


def test_saved_data_sets_parquet_and_files_give_the_same_examples(policy, load, tmp_path):
    values, texts = (20, 200), {"prompt": ["a", "b"], "thought": ["x", "y"]}
    given = datasets.Dataset.from_dict(texts | {"image": [picture(policy, value) for value in values]})
    given = given.cast_column("image", datasets.Image())
    given.save_to_disk(str(tmp_path / "saved"))
    given.to_parquet(str(tmp_path / "rows.parquet"))
    for value in values:
        picture(policy, value).save(tmp_path / f"{value}.png")
    rows = [{"prompt": p, "thought": t, "image": f"{v}.png"} for p, t, v in zip(*texts.values(), values)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    wanted = load(lines(tmp_path / "rows.jsonl", rows))
    assert wanted.thoughts == ["x", "y"]
    for name in ("saved", "rows.parquet", "rows.json"):
        found = load(tmp_path / name)
        assert found.thoughts == wanted.thoughts and [p.text for p in found.prompts] == ["a", "b"]
        assert torch.equal(found.image_tokens.int(), wanted.image_tokens.int())


def test_a_row_names_pictures_of_its_own_folder_or_of_the_one_that_is_given(policy, load, tmp_path):
    (tmp_path / "set").mkdir()
    picture(policy, 9).save(tmp_path / "other.png")
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "other.png")
    for name in ("../other.png", str(tmp_path / "other.png"), "link.png"):
        rows = lines(tmp_path / "set" / "rows.jsonl", [{"prompt": "a", "thought": "x", "image": name}])
        with pytest.raises(UserError, match=r"line 1: .* outside .* data\.picture_folder"):
            load(rows)
    for name in ("other.png", str(tmp_path / "other.png"), "set/link.png"):
        rows = lines(tmp_path / "set" / "rows.jsonl", [{"prompt": "a", "thought": "x", "image": name}])
        assert len(load(rows, picture_folder=tmp_path)) == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"image_tokens": None, "images": ["a.png"]}, "neither `image` .*its columns are prompt, thought, image_tokens, images"),
        ({"image_tokens": [[1], [1, 2]]}, "line 1: image_tokens must be"),
        ({"thought": None}, "line 1 has no `thought`"),
        ({"thought": ["a"]}, r"line 1 has no `thought` that is a text, but \['a'\]"),
        ({"thought": "a <begin_of_image> b"}, "line 1: `thought` spells a control token"),
        ({"thought": "a\0b"}, "line 1: `thought` holds U"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row_names_its_line(policy, load, tmp_path, more, says):
    with pytest.raises(UserError, match=says):
        load(lines(tmp_path / "rows.jsonl", [row(policy, **more)]))


def test_a_line_counts_the_rows_and_what_was_left_out(policy, load, tmp_path, capsys):
    (tmp_path / "test.txt").write_text("a test prompt\n")
    rows = [row(policy), row(policy, prompt="a test prompt"), row(policy, "long " * 99)]
    found = load(lines(tmp_path / "rows.jsonl", rows), against=[tmp_path / "test.txt"], leaks="drop", over_long="drop")
    assert len(found) == 1
    said = capsys.readouterr().err.splitlines()
    assert f"examples of {tmp_path / 'rows.jsonl'}: 3 read, 1 test prompts left out, 1 too long, left out" in said


def test_a_published_test_prompt_among_the_rows_is_refused_or_left_out(policy, load, tmp_path):
    rows = [row(policy), row(policy, prompt="A photo of a purple cup."), row(policy, prompt="b")]  # GenEval tests it
    path = lines(tmp_path / "rows.jsonl", rows)
    with pytest.raises(UserError, match=r"1 of 3 training prompts are test prompts of .*data\.leaks: drop"):
        load(path)
    assert [prompt.text for prompt in load(path, leaks="drop").prompts] == ["a ring", "b"]
