"""The shipped checkpoint is an ordinary Janus directory that draws, thinks a little and understands."""

import json

import numpy as np
import pytest
import torch

from thinkdraw.benchmarks.lab.understanding import agreement_on_drawn, evaluate_understanding
from thinkdraw.images import to_pixels
from thinkdraw.lab import checkpoint_path
from thinkdraw.lab.facts import PictureContents, is_true
from thinkdraw.lab.prompts import SPECS, prompt_set
from thinkdraw.lab.scenes import draw
from thinkdraw.policies import load_policy
from thinkdraw.policies.check import check_policy
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.rewards.lab_detector import judge
from thinkdraw.types import Sampling

pytestmark = pytest.mark.skipif(
    not (checkpoint_path() / "config.json").exists(), reason="the lab checkpoint is not in this tree"
)


@pytest.fixture(scope="module")
def policy() -> JanusPolicy:
    return load_policy(checkpoint_path())


def test_it_takes_at_most_16_mb_and_plain_transformers_loads_all_of_it():
    from transformers import AutoTokenizer, JanusForConditionalGeneration

    files = [f for f in checkpoint_path().iterdir() if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 16e6
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json", "README.md"} <= {
        f.name for f in files
    }
    _, found = JanusForConditionalGeneration.from_pretrained(checkpoint_path(), output_loading_info=True)
    assert not found["missing_keys"] and not found["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "is there a circle?"}]}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<|User|>: <image_placeholder>\nis there a circle?\n\n<|Assistant|>:"


def test_check_passes(policy: JanusPolicy):
    result = check_policy(policy)
    assert result.ok, json.dumps(result.as_dict(), indent=1)


def test_check_passes_in_bf16_and_fp32_heads_keep_text_close():
    for dtype in ("fp32", "bf16"):
        result = check_policy(load_policy(checkpoint_path(), dtype=dtype, precision="bf16"))
        assert result.ok, json.dumps(result.as_dict(), indent=1)
        # With bf16 weights, text would be 1e-2 off if the heads multiplied in bf16.
        assert result.deviations["inline, guidance 1, text"].rms < 5e-3


@pytest.mark.parametrize("family", SPECS)
def test_pictures_survive_the_tokenizer(policy: JanusPolicy, family):
    rng = np.random.default_rng(0)
    examples = prompt_set(family, "test", 100)
    pictures = np.stack([draw(e.scene(rng)) for e in examples])
    again = policy.decode_tokens(policy.encode_pictures(torch.from_numpy(pictures)))
    held = [judge(picture, e.prompt).correct for picture, e in zip(again.numpy(), examples, strict=True)]
    assert np.mean(held) >= 0.95


def test_it_answers_about_held_out_pictures_and_not_without_looking(policy: JanusPolicy):
    found = evaluate_understanding(policy, per_type=60)
    assert found.pictures.accuracy.value >= 0.78
    assert found.blanked.accuracy.value <= 0.55
    assert found.pictures.auroc >= 0.88


def test_its_answers_about_pictures_it_drew_agree_with_the_detector(policy: JanusPolicy):
    prompts = [e.prompt for e in prompt_set("geneval", "validation", 64)]
    drawn = policy.sample(prompts, Sampling(), seed=3)
    assert drawn.pictures is not None
    assert agreement_on_drawn(policy, drawn.pictures, prompts).auroc >= 0.9


def test_facts_of_a_prompt_are_true_of_its_scene():
    rng = np.random.default_rng(1)
    for e in prompt_set("dense", "validation", 20):
        seen = PictureContents.of_scene(e.scene(rng))
        assert all(is_true(q.fact, seen) for q in e.prompt.questions if q.fact)
    assert to_pixels(draw(e.scene(rng))[None]).shape == (1, 3, 64, 64)
