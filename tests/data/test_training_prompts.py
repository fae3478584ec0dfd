"""The guard where training prompts are loaded."""

import json
import logging

import pytest
import torch

from thinkdraw.data.prompt_files import write_prompts
from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.policies.janus.tiny import random_janus
from thinkdraw.training.data import DataSettings, lab_examples, load_examples, load_prompts


@pytest.fixture
def files(tmp_path):
    (tmp_path / "train.txt").write_text("a cat\na red dog\nan owl\n")
    (tmp_path / "test.txt").write_text("A Red Dog.\n")
    return tmp_path


def test_a_test_prompt_among_training_prompts_is_refused(files):
    settings = DataSettings(source=str(files / "train.txt"), against=[files / "test.txt"])
    with pytest.raises(UserError, match=r"1 of 3 training prompts .* 'a red dog' .* prompts\.leaks: drop"):
        load_prompts(settings)
    assert len(load_prompts(settings.model_copy(update={"against": []}))) == 3


def test_or_left_out_with_a_warning_that_counts(files, caplog):
    settings = DataSettings(source=str(files / "train.txt"), against=[files / "test.txt"], leaks="drop")
    with caplog.at_level(logging.WARNING):
        assert [p.text for p in load_prompts(settings)] == ["a cat", "an owl"]
    assert "1 of 3 prompts" in caplog.text
    (files / "test.txt").write_text("a cat\na red dog\nan owl\n")
    with pytest.raises(UserError, match="all 3 prompts"):
        load_prompts(settings)


def test_the_labs_prompts_are_guarded_too_and_its_own_splits_pass(files):
    train = DataSettings(count=40)
    assert load_prompts(train.model_copy(update={"against": [files / "test.txt"]})) == load_prompts(train)
    write_prompts(files / "lab.jsonl", load_prompts(train)[5:7])
    with pytest.raises(UserError, match="2 of 40"):
        load_prompts(train.model_copy(update={"against": [files / "lab.jsonl"]}))


def test_sft_examples_that_leak_are_left_out_with_their_pictures(files):
    model = load_policy(random_janus(files / "policy"))
    codes = [[n] * model.picture.num_tokens for n in range(3)]
    texts = ["a cat", "a red dog", "an owl"]
    rows = [{"prompt": p, "thought": f"about {p}", "image_tokens": c} for p, c in zip(texts, codes)]
    (files / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = DataSettings(source=str(files / "rows.jsonl"), against=[files / "test.txt"], leaks="drop")
    examples = load_examples(settings, model, 24, files / "codes.safetensors")
    assert examples.thoughts == ["about a cat", "about an owl"]
    assert torch.equal(examples.image_tokens.long(), torch.tensor([codes[0], codes[2]]))
    with pytest.raises(UserError, match=r"data\.leaks: drop"):
        load_examples(settings.model_copy(update={"leaks": "refuse"}), model, 24, files / "codes.safetensors")


def test_lab_examples_that_leak_are_left_out_before_their_scenes_are_drawn(files):
    model = load_policy(random_janus(files / "policy64", image_size=64, patch=16, layers=1))
    settings = DataSettings(count=8)
    prompts = [e.prompt for e in lab_examples(settings)]
    write_prompts(files / "lab.jsonl", prompts[:2])
    held = settings.model_copy(update={"against": [files / "lab.jsonl"], "leaks": "drop"})
    examples = load_examples(held, model, 24, files / "lab.safetensors")
    assert examples.prompts == prompts[2:] and len(examples.image_tokens) == 6
