"""`ClipScorer` and `PickScorer` on small random CLIPs, and the lab's where it is present."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from tests.judges.published import clip_shapes, save_clip_tokenizer, weights
from tests.judges.published import pictures as waves
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from thinkdraw.errors import UserError
from thinkdraw.judges import loading
from thinkdraw.judges.scorers import clip as judges_clip
from thinkdraw.judges.scorers.clip import ClipScorer, LabClipScorer, PickScorer
from thinkdraw.judges.scorers.hps_weights import infer_config, rename
from thinkdraw.lab import clip_path
from thinkdraw.lab.scenes import draw, random_scene
from thinkdraw.make_lab import clip
from thinkdraw.types import Scorer

TEXTS = ["a red circle", "two small rings above a cup", "there is a fish", "a red circle"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = clip.ClipConfig(
        out=tmp_path_factory.mktemp("clip"), vision_hidden=32, vision_layers=1, text_hidden=32, text_layers=1
    )
    tokenizer = clip.build_tokenizer()
    torch.manual_seed(0)
    return clip.publish(clip.build_model(config, tokenizer), tokenizer, config)


@pytest.fixture(scope="module")
def scorer(folder):
    return ClipScorer(folder)


def pictures(count):
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.stack([draw(random_scene(1 + i % 3, rng)) for i in range(count)]))


def test_the_score_is_the_cosine_that_plain_transformers_computes(folder, scorer):
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer, pil = AutoTokenizer.from_pretrained(folder), CLIPImageProcessorPil.from_pretrained(folder)
    pixels = pil([Image.fromarray(p) for p in pictures(4).numpy()], return_tensors="pt")
    with torch.no_grad():
        out = model(**tokenizer(TEXTS, padding=True, return_tensors="pt"), **pixels)
    expected = out.logits_per_text.diagonal() / model.logit_scale.exp()
    scores = scorer.score(pictures(4), TEXTS)
    assert torch.allclose(scores, expected, atol=1e-5)
    assert isinstance(scorer, Scorer) and scores.dtype == torch.float32 and not scores.requires_grad
    assert scores.abs().max() <= 1 and scores.std() > 1e-4


def test_a_pairs_score_does_not_depend_on_the_pairs_beside_it(folder, scorer):
    together = scorer.score(pictures(4), TEXTS)
    alone = torch.cat([scorer.score(pictures(4)[i : i + 1], TEXTS[i : i + 1]) for i in range(4)])
    in_parts = ClipScorer(folder, max_pairs=3).score(pictures(4), TEXTS)
    assert torch.allclose(together, alone, atol=1e-5) and torch.allclose(together, in_parts, atol=1e-5)
    assert scorer.score(pictures(1)[:0], []).shape == (0,)


def test_pictures_of_another_size_are_resized(scorer):
    large = pictures(2).repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    assert torch.allclose(scorer.score(large, TEXTS[:2]), scorer.score(pictures(2), TEXTS[:2]), atol=0.05)


def test_pictures_in_another_form_and_pairs_without_a_partner_are_refused(scorer):
    with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
        scorer.score(pictures(1).float(), ["a"])
    with pytest.raises(ValueError, match="2 pictures and 1 texts"):
        scorer.score(pictures(2), ["a"])


def test_a_text_that_is_too_long_is_cut_counted_and_said_once(folder, recwarn):
    scorer = ClipScorer(folder)
    long, longer = (" ".join(["a red circle"] * n) for n in (40, 50))  # 120 and 150 words
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the 96 tokens .* the longest 122"):
        first = scorer.score(pictures(1).repeat(2, 1, 1, 1), [long, "a cup"])
    recwarn.clear()
    assert scorer.score(pictures(1), [longer]).item() == pytest.approx(first[0].item(), abs=1e-5)
    assert scorer.num_truncated == 2 and not recwarn.list


def test_a_picture_that_breaks_the_model_has_no_verdict_and_the_others_keep_theirs(folder, monkeypatch):
    scorer = ClipScorer(folder)
    see, expected = scorer._embed_pictures, scorer.score(pictures(3), TEXTS[:3])
    monkeypatch.setattr(
        scorer, "_embed_pictures", lambda seen: see(seen) * torch.tensor([[1.0], [torch.nan], [torch.inf]])
    )
    scores = scorer.score(pictures(3), TEXTS[:3])
    assert scores[0] == expected[0] and scores[1:].isnan().all()


def test_a_groups_text_is_read_once(folder, monkeypatch):
    scorer, read = ClipScorer(folder), []
    monkeypatch.setattr(scorer, "_embed_texts", lambda texts: read.extend(texts) or torch.ones(len(texts), 128))
    scorer.score(pictures(4), ["a cup", "a cup", "a fish", "a cup"])
    assert read == ["a cup", "a fish"]


def test_the_revision_changes_with_one_value_of_one_weight_and_with_the_judge(folder, scorer):
    assert scorer.revision == ClipScorer(folder).revision != LabClipScorer(folder).revision
    changed = ClipScorer(folder)
    changed.model.text_projection.weight[0, 0] += 1e-3
    assert changed.revision != scorer.revision and len(scorer.revision) == 12


@pytest.fixture(scope="module")
def pickscore(tmp_path_factory):
    """As published: weights without processors in one folder, processors without weights in another."""
    made = tmp_path_factory.mktemp("pickscore")
    drawn = weights(clip_shapes(vision=128, text=64, layers=(1, 1), length=16))
    drawn["logit_scale"] = torch.tensor(4.6052)  # ln 100
    config = infer_config(drawn, 64, 64, hidden_act="gelu")
    loading.fill_model("pickscore", CLIPModel, config, rename(drawn)).save_pretrained(made / "weights")
    save_clip_tokenizer(made / "processor")
    sizes = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}
    CLIPImageProcessorPil(**sizes).save_pretrained(made / "processor")
    return made


@pytest.mark.parametrize("size", [(30, 45), (45, 30), (28, 28)])
def test_pickscore_is_the_logit_that_plain_transformers_computes(pickscore, size):
    model = CLIPModel.from_pretrained(pickscore / "weights", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(pickscore / "processor")
    pil = CLIPImageProcessorPil.from_pretrained(pickscore / "processor")
    texts = ["a red cat", "two dogs and a ball"]
    pixels = pil([Image.fromarray(p) for p in waves(*size).numpy()], return_tensors="pt")
    with torch.no_grad():
        expected = model(**tokenizer(texts, padding=True, return_tensors="pt"), **pixels).logits_per_image.diagonal()
    scorer = PickScorer(pickscore / "weights", processor=str(pickscore / "processor"))
    scores = scorer.score(waves(*size), texts)
    assert torch.allclose(scores, expected, atol=1e-4, rtol=0)  # 100 × a cosine that is right to 1e-6
    assert isinstance(scorer, Scorer) and scores.abs().max() <= 100.01 and scorer.name == "pickscore"
    assert torch.allclose(
        ClipScorer(pickscore / "weights", processor=str(pickscore / "processor")).score(waves(*size), texts),
        expected / 100,
        atol=1e-5,
    )


def test_pickscore_without_its_processor_says_what_is_missing(pickscore):
    with pytest.raises(UserError, match="knows no words"):
        PickScorer(pickscore / "weights", processor=str(pickscore / "weights"))


def spoilt(folder, made, spoil):
    shutil.copytree(folder, made)
    if spoil == "model_type":
        config = json.loads((made / "config.json").read_text())
        (made / "config.json").write_text(json.dumps(config | {"model_type": "janus"}))
    elif spoil == "truncated":
        (made / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:1000])
    elif spoil == "layers":
        config = json.loads((made / "config.json").read_text())
        config["text_config"]["num_hidden_layers"] = 2
        (made / "config.json").write_text(json.dumps(config))
    elif spoil:
        for name in spoil.split():
            (made / name).unlink()
    return made


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("config.json", "has no config.json"),
        ("model_type", "model_type=janus, not clip"),
        ("model.safetensors", "cannot be read"),
        ("truncated", "cannot be read"),
        ("layers", "lacks 16 weights, text_model.encoder.layers.1"),
        ("tokenizer.json tokenizer_config.json", "its tokenizer knows no words"),
        ("tokenizer.json", "tokenizer or image processor cannot be read"),
        ("preprocessor_config.json", "tokenizer or image processor cannot be read"),
    ],
)
def test_a_checkpoint_that_is_not_right_is_named_in_one_line(folder, tmp_path, spoil, message):
    with pytest.raises(UserError, match=message) as caught:
        ClipScorer(spoilt(folder, tmp_path / "clip", spoil))
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_missing_lab_clip_say_the_way_out(tmp_path, monkeypatch, folder):
    with pytest.raises(UserError, match=r"nowhere has no config\.json"):
        ClipScorer(tmp_path / "nowhere")
    monkeypatch.setattr(judges_clip, "clip_path", lambda: tmp_path / "clip")
    with pytest.raises(UserError, match="thinkdraw train lab_clip"):
        LabClipScorer()
    shutil.copytree(folder, tmp_path / "clip")
    assert LabClipScorer().path == str(tmp_path / "clip")


@pytest.mark.skipif(not (clip_path() / "config.json").exists(), reason="the lab's CLIP is not in this tree")
def test_the_shipped_clip_takes_at_most_4_mb_and_tells_one_fact():
    assert sum(f.stat().st_size for f in clip_path().iterdir()) <= 4e6
    measured = clip.caption_accuracy(LabClipScorer(), 300, seed=1)
    right, count = measured.fact_total()
    assert measured.num_no_verdict == 0 and count == 300
    assert right / count > 0.7 and measured.other_scene[0] / measured.other_scene[1] > 0.9
