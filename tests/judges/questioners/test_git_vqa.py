"""`GitVqaJudge` on a tiny random GIT, against T2I-R1's computation step by step."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.judges import helpers_vqa as tiny
from tests.judges.helpers_vlm import CLIP_MEAN, CLIP_STD, pictures
from transformers import GitForCausalLM

from thinkdraw.errors import UserError
from thinkdraw.judges import load_judge
from thinkdraw.judges.questioners.git_vqa import GitVqaJudge
from thinkdraw.types import Questioner

QUESTIONS = ["red dog?", "the green bench?", "cup?", "a two cup-dog?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.git(tmp_path_factory.mktemp("git"))


@pytest.fixture(scope="module")
def judge(folder):
    return GitVqaJudge(str(folder), device="cpu")


def as_t2i_r1(model, picture, question):
    """[CLS] and the question without [SEP]; softmax of the last position; yes over yes and no."""
    resized = Image.fromarray(picture.numpy()).resize((32, 32), Image.Resampling.BICUBIC)
    pixels = (np.asarray(resized) / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    words = question.replace("?", " ?").replace("-", " - ").split()
    ids = torch.tensor([[tiny.WORDS.index("[CLS]"), *(tiny.WORDS.index(word) for word in words)]])
    pixel_values = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.no_grad():
        probs = model(input_ids=ids, pixel_values=pixel_values).logits[0, -1].softmax(-1)
    yes, no = probs[tiny.WORDS.index("yes")], probs[tiny.WORDS.index("no")]
    return yes / (yes + no)


def test_p_yes_is_that_of_t2i_r1(folder, judge):
    model = GitForCausalLM.from_pretrained(folder).eval()
    expected = torch.stack([as_t2i_r1(model, *pair) for pair in zip(pictures(4), QUESTIONS)])
    p = judge.answer(pictures(4), QUESTIONS)
    assert torch.allclose(p, expected, atol=1e-5), (p, expected)
    assert isinstance(judge, Questioner) and p.dtype == torch.float32 and p.std() > 1e-3
    assert judge.answer(pictures(4), ["dog?"] * 4).std() > 1e-3  # the picture matters


def test_a_pairs_number_does_not_depend_on_the_pairs_beside_it(folder, judge):
    together = judge.answer(pictures(4), QUESTIONS)
    alone = torch.cat([judge.answer(pictures(4)[i : i + 1], [QUESTIONS[i]]) for i in range(4)])
    in_parts = GitVqaJudge(str(folder), device="cpu", max_pairs=3).answer(pictures(4), QUESTIONS)
    assert (together - alone).abs().max() <= 1e-5 and (together - in_parts).abs().max() <= 1e-5
    assert judge.answer(pictures(1)[:0], []).shape == (0,)


def test_a_question_longer_than_the_model_reads_is_cut(judge):
    # 64 positions: [CLS] and 63 words
    p = judge.answer(pictures(1).repeat(2, 1, 1, 1), [" ".join(["dog"] * n) for n in (63, 80)])
    assert p.tolist() == pytest.approx([p[0].item()] * 2, abs=1e-5)


def test_the_revision_follows_the_weights(folder, judge, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["git.encoder.layer.0.attention.self.query.weight"][0, 0] += 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert GitVqaJudge(str(folder), device="cpu").revision == judge.revision
    assert GitVqaJudge(str(other), device="cpu").revision != judge.revision


def test_what_cannot_be_judged_is_refused_in_one_line(folder, judge, tmp_path):
    with pytest.raises(UserError, match="has no token for 'yes'"):
        GitVqaJudge(str(tiny.git(tmp_path / "mute", [w for w in tiny.WORDS if w != "yes"])), device="cpu")
    with pytest.raises(UserError, match="model_type=blip, not git"):
        load_judge("git-vqa", path=str(tiny.blip(tmp_path / "blip")), device="cpu")
    with pytest.raises(ValueError, match="1 pictures and 2 questions"):
        judge.answer(pictures(1), ["a", "b"])
