"""`BlipVqaJudge` on a tiny random BLIP, against T2I-CompBench's protocol step by step."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.judges import helpers_vqa as tiny
from tests.judges.helpers_vlm import CLIP_MEAN, CLIP_STD, pictures
from torch.nn.functional import interpolate
from transformers import BlipForQuestionAnswering

from thinkdraw.errors import UserError
from thinkdraw.judges import load_judge
from thinkdraw.judges.questioners.blip_vqa import BlipVqaJudge, plain_question
from thinkdraw.types import Questioner

QUESTIONS = ["a green bench?", "Is there the red dog?", "two cup?", "dog?"]
DEC, ENC = len(tiny.WORDS), len(tiny.WORDS) + 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture(scope="module")
def judge(folder):
    return BlipVqaJudge(str(folder), device="cpu", image_size=48)


def by_protocol(folder, picture, question, side):
    """One picture and question, unpadded: resize, interpolated positions, [ENC], [DEC], softmax, two words."""
    model = BlipForQuestionAnswering.from_pretrained(folder).eval()
    resized = Image.fromarray(picture.numpy()).resize((side, side), Image.Resampling.BICUBIC)
    pixels = (np.asarray(resized) / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    pixels = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
    positions = model.vision_model.embeddings.position_embedding
    grid = positions[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)  # 32 / 8 = 4 patches a side
    grid = interpolate(grid, size=(side // 8, side // 8), mode="bicubic", align_corners=False)
    model.vision_model.embeddings.position_embedding = torch.nn.Parameter(
        torch.cat([positions[:, :1], grid.flatten(2).transpose(1, 2)], 1)
    )
    words = question.lower().replace("?", " ?").split()
    ids = torch.tensor([[ENC, *(tiny.WORDS.index(word) for word in words), tiny.WORDS.index("[SEP]")]])
    with torch.no_grad():
        seen = model.vision_model(pixels).last_hidden_state
        read = model.text_encoder(ids, encoder_hidden_states=seen).last_hidden_state
        probs = model.text_decoder(torch.tensor([[DEC]]), encoder_hidden_states=read).logits[0, 0].softmax(-1)
    yes, no = probs[tiny.WORDS.index("yes")], probs[tiny.WORDS.index("no")]
    return yes / (yes + no)


@pytest.mark.parametrize("side", [32, 48])
def test_p_yes_is_that_of_the_protocol_at_the_checkpoints_size_and_at_another(folder, side):
    judge = BlipVqaJudge(str(folder), device="cpu", image_size=side)
    expected = torch.stack([by_protocol(folder, *pair, side) for pair in zip(pictures(4), QUESTIONS)])
    p = judge.answer(pictures(4), QUESTIONS)
    assert torch.allclose(p, expected, atol=1e-5), (p, expected)
    assert isinstance(judge, Questioner) and p.dtype == torch.float32 and p.std() > 1e-3
    assert judge.answer(pictures(4), ["dog?"] * 4).std() > 1e-3  # the picture matters


def test_the_first_token_is_enc_and_it_matters(folder, judge):
    # with [CLS] in its place, as the class's own processor leaves it, the number is another one
    plain = BlipVqaJudge(str(folder), device="cpu", image_size=48)
    plain.enc = plain.tokenizer.cls_token_id
    assert (judge.dec, judge.enc) == (DEC, ENC)
    assert (plain.answer(pictures(4), QUESTIONS) - judge.answer(pictures(4), QUESTIONS)).abs().max() > 1e-3


def test_without_a_size_the_checkpoints_own_is_taken_and_480_without_being_asked(folder):
    own = BlipVqaJudge(str(folder), device="cpu", image_size=None)
    assert torch.equal(
        own.answer(pictures(2), QUESTIONS[:2]),
        BlipVqaJudge(str(folder), device="cpu", image_size=32).answer(pictures(2), QUESTIONS[:2]),
    )
    assert BlipVqaJudge(str(folder), device="cpu").size == {"height": 480, "width": 480}


def test_a_pairs_number_does_not_depend_on_the_pairs_beside_it(folder, judge):
    shown = pictures(2)[[0, 1, 0, 0]]  # one picture with three questions is looked at once
    together = judge.answer(shown, QUESTIONS)
    alone = torch.cat([judge.answer(shown[i : i + 1], [QUESTIONS[i]]) for i in range(4)])
    in_parts = BlipVqaJudge(str(folder), device="cpu", image_size=48, max_pairs=3).answer(shown, QUESTIONS)
    assert (together - alone).abs().max() <= 1e-5 and (together - in_parts).abs().max() <= 1e-5
    assert judge.answer(shown[:0], []).shape == (0,)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("A Green bench?", "a green bench?"),
        ('the "red" dog (left)!', "the red dog left"),
        ("a.b:c;d~e#f*g", "abcdefg"),
        ("a dog  ", "a dog"),
        (" ".join(["dog"] * 60) + "?", " ".join(["dog"] * 50)),
    ],
)
def test_a_question_is_read_as_blip_was_trained(text, plain):
    assert plain_question(text) == plain


def test_a_question_is_cut_at_35_tokens(judge):
    # [ENC] and [SEP] leave 33 words
    long = [" ".join(["dog"] * n) for n in (33, 34, 50)]
    p = judge.answer(pictures(1).repeat(3, 1, 1, 1), long)
    assert p.tolist() == pytest.approx([p[0].item()] * 3, abs=1e-5)


def test_the_revision_follows_weights_and_size(folder, judge, tmp_path):
    again = BlipVqaJudge(str(folder), device="cpu", image_size=48)
    other = shutil.copytree(folder, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["text_encoder.encoder.layer.0.attention.self.query.weight"][0, 0] += 1
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    assert again.revision == judge.revision
    assert BlipVqaJudge(str(folder), device="cpu", image_size=32).revision != judge.revision
    assert BlipVqaJudge(str(other), device="cpu", image_size=48).revision != judge.revision


def test_what_cannot_be_judged_is_refused_in_one_line(folder, judge, tmp_path):
    with pytest.raises(UserError, match="has no token for 'no'"):
        BlipVqaJudge(str(tiny.blip(tmp_path / "mute", [w for w in tiny.WORDS if w != "no"])), device="cpu")
    with pytest.raises(UserError, match="model_type=git, not blip"):
        load_judge("blip-vqa", path=str(tiny.git(tmp_path / "git")), device="cpu")
    with pytest.raises(UserError, match=r"has no config\.json"):
        BlipVqaJudge(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="question 1 of 1 is empty"):
        judge.answer(pictures(1), [""])
