"""`ImageRewardScorer` against numbers of the original.

fixtures/imagereward.json and clip_pixels.safetensors hold what github.com/THUDM/ImageReward at c1392c6 computes for the
pictures of `published.pictures`: token ids of transformers 4.40's BertTokenizer over `published.BERT_WORDS`, pixels of
its `_transform` with torchvision 0.28 (OpenAI CLIP's), and the rewards of its `ImageReward.score` with the weights of
`published.weights`, in tiny sizes with the published 64 dimensions per head. timm's PatchEmbed, a convolution, was
written anew there, because timm 0.6.13 does not install beside that torch.
"""

import json

import pytest
import torch
from safetensors.torch import load_file
from tests.judges.published import BERT_WORDS, FIXTURES, pictures, weights
from transformers import BertTokenizer

from thinkdraw.errors import UserError
from thinkdraw.judges.questioners.blip_weights import infer_text, infer_vision
from thinkdraw.judges.scorers.clip_pixels import resize_and_crop
from thinkdraw.judges.scorers.imagereward import FILE, ImageRewardScorer
from thinkdraw.types import Scorer

ORIGINAL = json.loads((FIXTURES / "imagereward.json").read_text(encoding="utf-8"))
TEXTS = ORIGINAL["texts"]
SIZES = [(30, 45), (45, 30), (97, 60), (32, 32), (20, 17), (67, 32)]
WIDTH = 128


def shapes():
    linear = {}  # name: (out, in)
    vision, text = "blip.visual_encoder.", "blip.text_encoder."
    for block in (f"{vision}blocks.{i}." for i in range(2)):
        linear |= {f"{block}attn.qkv": (3 * WIDTH, WIDTH), f"{block}attn.proj": (WIDTH, WIDTH)}
        linear |= {f"{block}mlp.fc1": (4 * WIDTH, WIDTH), f"{block}mlp.fc2": (WIDTH, 4 * WIDTH)}
    for layer in (f"{text}encoder.layer.{i}." for i in range(2)):
        for attention in ("attention", "crossattention"):
            linear |= {f"{layer}{attention}.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
            linear |= {f"{layer}{attention}.output.dense": (WIDTH, WIDTH)}
        linear |= {f"{layer}intermediate.dense": (4 * WIDTH, WIDTH), f"{layer}output.dense": (WIDTH, 4 * WIDTH)}
    linear |= {"blip.vision_proj": (16, WIDTH), "blip.text_proj": (16, WIDTH)}
    head = (WIDTH, 1024, 128, 64, 16, 1)
    linear |= {f"mlp.layers.{i}": (head[k + 1], head[k]) for k, i in enumerate((0, 2, 4, 6, 7))}
    linear |= {f"{vision}patch_embed.proj": (WIDTH, 3, 16, 16)}
    norms = [f"{vision}norm", *(f"{vision}blocks.{i}.norm{k}" for i in range(2) for k in (1, 2))]
    norms += [f"{text}embeddings.LayerNorm"]
    for layer in (f"{text}encoder.layer.{i}." for i in range(2)):
        norms += [f"{layer}{part}.LayerNorm" for part in ("attention.output", "crossattention.output", "output")]
    return (
        {f"{name}.weight": shape for name, shape in linear.items()}
        | {f"{name}.bias": shape[:1] for name, shape in linear.items()}
        | {f"{name}.{kind}": (WIDTH,) for name in norms for kind in ("weight", "bias")}
        | {f"{vision}cls_token": (1, 1, WIDTH), f"{vision}pos_embed": (1, 5, WIDTH)}
        | {f"{text}embeddings.word_embeddings.weight": (len(BERT_WORDS) + 2, WIDTH)}
        | {f"{text}embeddings.position_embeddings.weight": (40, WIDTH)}
    )


def published():
    return weights(shapes()) | {"blip.text_encoder.embeddings.position_ids": torch.arange(40)[None]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("imagereward")
    torch.save(published(), made / FILE)
    BertTokenizer(vocab={word: i for i, word in enumerate(BERT_WORDS)}).save_pretrained(made / "tokenizer")
    return made


def scorer_of(folder, path=None, **settings):
    return ImageRewardScorer(path or folder, tokenizer=str(folder / "tokenizer"), **settings)


@pytest.fixture(scope="module")
def scorer(folder):
    return scorer_of(folder)


@pytest.mark.filterwarnings("ignore:1 of 3 texts")
@pytest.mark.parametrize("size", SIZES)
def test_scores_are_those_of_the_original_code(scorer, size):
    expected = torch.tensor(ORIGINAL["scores"]["{}x{}".format(*size)])
    for picture, row in zip(pictures(*size), expected, strict=True):
        assert torch.allclose(scorer.score(picture.repeat(3, 1, 1, 1), TEXTS), row, atol=1e-5)
    assert expected.std() > 0.1


def test_pixels_are_those_of_the_original_transform():
    # (67, 32) loses 35 rows: torchvision cuts round(17.5) = 18 above, where transformers cuts 17
    for name, expected in load_file(FIXTURES / "clip_pixels.safetensors").items():
        height, width = (int(side) for side in name.split("x"))
        assert torch.allclose(resize_and_crop(pictures(height, width), 32)[0], expected, atol=1e-5), name


def test_token_ids_are_those_of_the_original_tokenizer(scorer):
    ids = scorer.tokenizer(TEXTS, padding="max_length", truncation=True, max_length=35).input_ids
    assert ids == ORIGINAL["ids"]


def test_it_is_a_scorer_that_scores_alone_as_beside_others(folder, scorer):
    seen, texts = torch.cat([pictures(32, 32), pictures(32, 32)[:1]]), [TEXTS[0], TEXTS[1], TEXTS[0]]
    together = scorer.score(seen, texts)
    alone = torch.cat([scorer.score(seen[i : i + 1], texts[i : i + 1]) for i in range(3)])
    in_parts = scorer_of(folder, max_pairs=2).score(seen, texts)
    assert isinstance(scorer, Scorer) and together.dtype == torch.float32
    assert torch.allclose(together, alone, atol=1e-5) and torch.allclose(together, in_parts, atol=1e-5)
    assert scorer.score(seen[:0], []).shape == (0,)


def test_pictures_in_another_form_are_refused(scorer):
    with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
        scorer.score(pictures(32, 32)[..., :1], TEXTS[:2])


def test_a_text_that_is_too_long_is_cut_counted_and_said_once(folder):
    scorer = scorer_of(folder)
    # 7 × 7 words + [CLS] + [SEP] = 51 tokens
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the 35 tokens .* the longest 51"):
        scorer.score(pictures(32, 32), [TEXTS[0], TEXTS[2]])
    scorer.score(pictures(32, 32)[:1], [TEXTS[2]])
    assert scorer.num_truncated == 2


def test_a_number_that_is_not_finite_is_no_verdict_and_the_others_keep_theirs(folder, scorer, monkeypatch):
    judge = scorer._judge
    monkeypatch.setattr(scorer, "_judge", lambda seen, texts: judge(seen, texts) + torch.tensor([torch.inf, 0]))
    scores = scorer.score(pictures(32, 32), TEXTS[:2])
    assert scores[0].isnan() and scores[1] == pytest.approx(ORIGINAL["scores"]["32x32"][1][1], abs=1e-5)


def test_the_revision_follows_every_weight_that_the_score_uses_and_no_other(folder, tmp_path, scorer):
    changed = published()
    changed["blip.vision_proj.bias"] += 1
    torch.save(changed, tmp_path / "unused.pt")
    changed["mlp.layers.7.bias"] += 1
    torch.save(changed, tmp_path / "used.pt")
    revisions = [scorer_of(folder, tmp_path / name).revision for name in ("unused.pt", "used.pt")]
    assert revisions[0] == scorer.revision != revisions[1]


def test_the_published_sizes_are_read_off_the_names_and_shapes_of_the_published_file():
    seeing = {"patch_embed.proj.weight": (1024, 3, 16, 16), "pos_embed": (1, 197, 1024)}
    seeing |= {f"blocks.{i}.mlp.fc1.weight": (4096, 1024) for i in range(24)}
    reading = {"embeddings.word_embeddings.weight": (30524, 768), "embeddings.position_embeddings.weight": (512, 768)}
    reading |= {f"encoder.layer.{i}.intermediate.dense.weight": (3072, 768) for i in range(12)}
    reading |= {"encoder.layer.0.crossattention.self.key.weight": (768, 1024)}
    vision = infer_vision({name: torch.empty(shape, device="meta") for name, shape in seeing.items()})
    text = infer_text({name: torch.empty(shape, device="meta") for name, shape in reading.items()})
    assert (vision.num_hidden_layers, vision.num_attention_heads, vision.image_size) == (24, 16, 224)
    assert (text.num_hidden_layers, text.num_attention_heads, text.encoder_hidden_size) == (12, 12, 1024)


LOST = "blip.visual_encoder.blocks.1.norm1.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({LOST: None}, r"lacks 1 weights, encoder.layers.1.layer_norm1.weight first"),
        ({"mlp.layers.7.bias": None}, r"mlp.layers.7.bias is not as in a head of five linear layers"),
        ({"mlp.layers.2.weight": torch.zeros(128, 7)}, r"give \[1024, 128, 64, 16, 1\] numbers and do not fit"),
        ({"blip.visual_encoder.pos_embed": None}, "no ImageReward .'pos_embed'"),
        ({"blip.text_encoder.encoder.layer.1.output.dense.bias": torch.zeros(3)}, "do not fit together"),
        ({"blip.visual_encoder.blocks.0.gamma": torch.zeros(3)}, "no ImageReward .'gamma'"),
    ],
)
def test_a_file_that_is_not_right_is_named_in_one_line(folder, tmp_path, change, message):
    found = published() | change
    torch.save({name: weight for name, weight in found.items() if weight is not None}, tmp_path / "reward.pt")
    with pytest.raises(UserError, match=message) as caught:
        scorer_of(folder, tmp_path / "reward.pt")
    assert "\n" not in str(caught.value) and "reward.pt" in str(caught.value)


def test_an_absent_file_and_another_tokenizer_say_the_way_out(folder, tmp_path):
    with pytest.raises(UserError, match=f"has no {FILE} .* Give that file, its folder or"):
        scorer_of(folder, tmp_path)
    words = {word: i for i, word in enumerate([*BERT_WORDS, "one", "more", "word"])}
    BertTokenizer(vocab=words).save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(UserError, match=r"knows 22 tokens .* has 23 and cls_token=.CLS.. Give the one of bert-base"):
        scorer_of(tmp_path, folder)
