"""`HpsScorer` against numbers of the original.

fixtures/hps.json and hps_pixels.safetensors hold what github.com/tgxs002/HPSv2 at 866735e computes for the pictures of
`published.pictures`: token ids of its tokenizer over `published.MERGES`, pixels of its `image_transform` with
torchvision 0.28, and the cosines of its `CLIP` with the weights of `published.weights`. Its sizes are tiny, with the
published 80 and 64 dimensions per head, two heads in each tower.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.judges.published import FIXTURES, clip_shapes, pictures, save_clip_tokenizer, weights

from thinkdraw.errors import UserError
from thinkdraw.judges.scorers.hps import FILE, TEXT_HEAD, VISION_HEAD, HpsScorer, resize_and_pad
from thinkdraw.judges.scorers.hps_weights import infer_config
from thinkdraw.types import Scorer

ORIGINAL = json.loads((FIXTURES / "hps.json").read_text(encoding="utf-8"))
TEXTS = ORIGINAL["texts"]
SIZES = [(30, 45), (45, 30), (20, 17), (28, 28), (97, 60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("hps")
    torch.save({"state_dict": published()}, made / FILE)
    save_clip_tokenizer(made / "tokenizer")
    return made


def published():
    return weights(clip_shapes(vision=160, text=128, layers=(2, 1), length=16))


def scorer_of(folder, path=None, **settings):
    return HpsScorer(path or folder, tokenizer=str(folder / "tokenizer"), **settings)


@pytest.fixture(scope="module")
def scorer(folder):
    return scorer_of(folder)


@pytest.mark.filterwarnings("ignore:1 of 3 texts")
@pytest.mark.parametrize("size", SIZES)
def test_scores_are_the_cosines_of_the_original_code(scorer, size):
    expected = torch.tensor(ORIGINAL["scores"]["{}x{}".format(*size)])
    for picture, row in zip(pictures(*size), expected, strict=True):
        scores = scorer.score(picture.repeat(3, 1, 1, 1), TEXTS)
        assert torch.allclose(scores, row, atol=1e-5)
    assert expected.std() > 0.02


def test_pixels_are_those_of_the_original_transform():
    # (30, 45) is shrunk and padded above and below, (45, 30) at the sides, (20, 17) enlarged, (28, 28) left as it is
    for name, expected in load_file(FIXTURES / "hps_pixels.safetensors").items():
        height, width = (int(side) for side in name.split("x"))
        assert torch.allclose(resize_and_pad(pictures(height, width), 28)[0], expected, atol=1e-5), name


def test_a_picture_whose_longer_side_fits_is_padded_too():
    pixels = resize_and_pad(pictures(28, 14), 28)
    black = resize_and_pad(torch.zeros(1, 28, 28, 3, dtype=torch.uint8), 28)[0]
    assert torch.equal(pixels[0, :, :, :7], black[:, :, :7]) and torch.equal(pixels[0, :, :, 21:], black[:, :, 21:])


def test_token_ids_are_those_of_the_original_tokenizer_with_its_quotes_and_entities(scorer):
    for text, expected in zip(TEXTS, ORIGINAL["ids"], strict=True):
        ids = scorer.tokenizer(scorer._prepare(text), truncation=True, max_length=16).input_ids
        assert ids == [token for token in expected if token]


def test_it_is_a_scorer_that_scores_alone_as_beside_others(folder, scorer):
    seen, texts = torch.cat([pictures(28, 28), pictures(28, 28)[:1]]), [TEXTS[0], TEXTS[1], TEXTS[0]]
    together = scorer.score(seen, texts)
    alone = torch.cat([scorer.score(seen[i : i + 1], texts[i : i + 1]) for i in range(3)])
    in_parts = scorer_of(folder, max_pairs=2).score(seen, texts)
    assert isinstance(scorer, Scorer) and together.dtype == torch.float32
    assert torch.allclose(together, alone, atol=1e-6) and torch.allclose(together, in_parts, atol=1e-6)
    assert together[0] == together[2]


def test_a_text_that_is_too_long_is_cut_counted_and_said_once(folder):
    scorer = scorer_of(folder)
    with pytest.warns(UserWarning, match=r"1 of 2 texts are longer than the 16 tokens .* the longest 38"):
        scorer.score(pictures(28, 28), [TEXTS[0], TEXTS[2]])
    scorer.score(pictures(28, 28)[:1], [TEXTS[2]])
    assert scorer.num_truncated == 2


def test_weights_in_half_precision_and_in_safetensors_are_read(folder, tmp_path, scorer):
    half = {name: weight.half() for name, weight in published().items()}
    torch.save({"state_dict": half}, tmp_path / "half.pt")
    save_file(published(), tmp_path / "hps.safetensors")
    expected = scorer.score(pictures(28, 28), TEXTS[:2])
    same = scorer_of(folder, tmp_path / "hps.safetensors")
    assert torch.equal(same.score(pictures(28, 28), TEXTS[:2]), expected)
    halved = scorer_of(folder, tmp_path / "half.pt")
    assert torch.allclose(halved.score(pictures(28, 28), TEXTS[:2]), expected, atol=5e-3)
    assert same.revision == scorer.revision != halved.revision and len(scorer.revision) == 12


def test_a_picture_that_breaks_the_model_has_no_verdict_and_the_others_keep_theirs(folder, scorer, monkeypatch):
    see = scorer._embed_pictures
    monkeypatch.setattr(scorer, "_embed_pictures", lambda seen: see(seen) * torch.tensor([[torch.inf], [1.0]]))
    scores = scorer.score(pictures(28, 28), TEXTS[:2])
    assert scores[0].isnan() and scores[1] == pytest.approx(ORIGINAL["scores"]["28x28"][1][1], abs=1e-5)


def test_the_published_sizes_are_read_off_the_names_and_shapes_of_the_published_file():
    shapes = {"visual.conv1.weight": (1280, 3, 14, 14), "visual.positional_embedding": (257, 1280)}
    shapes |= {"token_embedding.weight": (49408, 1024), "positional_embedding": (77, 1024)}
    shapes |= {f"visual.transformer.resblocks.{i}.mlp.c_fc.weight": (5120, 1280) for i in range(32)}
    shapes |= {f"transformer.resblocks.{i}.mlp.c_fc.weight": (4096, 1024) for i in range(24)}
    shapes |= {"text_projection": (1024, 1024)}
    found = infer_config({n: torch.empty(s, device="meta") for n, s in shapes.items()}, VISION_HEAD, TEXT_HEAD, "gelu")
    vision, text = found.vision_config, found.text_config
    assert (vision.num_hidden_layers, vision.num_attention_heads, vision.image_size) == (32, 16, 224)
    assert (text.num_hidden_layers, text.num_attention_heads, text.eos_token_id) == (24, 16, 49407)


class Harmful:
    def __reduce__(self):
        return print, ("this code ran",)


def spoilt(path, spoil):
    found = published()
    if spoil == "truncated":
        torch.save({"state_dict": found}, path)
        path.write_bytes(path.read_bytes()[:5000])
    elif spoil == "code":
        torch.save({"state_dict": found, "more": Harmful()}, path)
    elif spoil == "list":
        torch.save([1, 2], path)
    elif spoil == "other":
        torch.save({"blip.text_encoder.embeddings.position_ids": torch.arange(3)}, path)
    elif spoil == "extra":
        torch.save({"state_dict": found | {"visual.head.weight": torch.zeros(2)}}, path)
    elif spoil == "shape":
        torch.save({"state_dict": found | {"visual.proj": torch.zeros(3, 3)}}, path)
    else:
        torch.save({"state_dict": {name: weight for name, weight in found.items() if name != spoil}}, path)
    return path


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("truncated", "cannot be read"),
        ("code", "cannot be read"),
        ("list", "holds list, not named weights"),
        ("other", "no CLIP in open_clip's names"),
        ("extra", "'visual.head.weight'"),
        ("shape", "do not fit together"),
        ("visual.proj", "lacks 1 weights, visual_projection.weight first"),
        ("visual.transformer.resblocks.1.ln_1.weight", "vision_model.encoder.layers.1.layer_norm1.weight first"),
        ("transformer.resblocks.0.attn.in_proj_bias", "lacks 3 weights"),
        ("text_projection", "'text_projection'"),
    ],
)
def test_a_file_that_is_not_right_is_named_in_one_line(folder, tmp_path, capsys, spoil, message):
    with pytest.raises(UserError, match=message) as caught:
        scorer_of(folder, spoilt(tmp_path / "hps.pt", spoil))
    assert "\n" not in str(caught.value) and "hps.pt" in str(caught.value)
    assert "this code ran" not in capsys.readouterr().out


def test_an_absent_file_and_another_tokenizer_say_the_way_out(folder, tmp_path):
    with pytest.raises(UserError, match=f"has no {FILE} .* Give that file, its folder or"):
        scorer_of(folder, tmp_path)
    with pytest.raises(UserError, match="tokenizer"):
        HpsScorer(folder, tokenizer=str(tmp_path))
    tokens = scorer_of(folder).tokenizer
    tokens.add_special_tokens({"eos_token": "<end>"})
    tokens.save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match=r"ends a text with token 534, the tokenizer of .*other with 535"):
        HpsScorer(folder, tokenizer=str(tmp_path / "other"))
