"""`AestheticScorer` against numbers of the original.

fixtures/aesthetic.json holds what `MLP` and `normalized` of simple_inference.py
(github.com/christophschuhmann/improved-aesthetic-predictor at 6934dd8) compute from `encode_image` of
github.com/openai/CLIP at d05afc4 behind its `_transform` with torchvision 0.28, for the pictures of
`published.pictures` and the weights of `published.weights`, in tiny sizes with the published 64 dimensions per head.
"""

import json

import pytest
import torch
from tests.judges.published import FIXTURES, clip_shapes, pictures, weights
from transformers import CLIPModel

from thinkdraw.errors import UserError
from thinkdraw.judges.loading import fill_model
from thinkdraw.judges.scorers.aesthetic import FILE, AestheticScorer
from thinkdraw.judges.scorers.hps_weights import infer_config, rename
from thinkdraw.types import Scorer

ORIGINAL = json.loads((FIXTURES / "aesthetic.json").read_text(encoding="utf-8"))["scores"]
SIZES = [(30, 45), (45, 30), (63, 28), (28, 28)]
TEXTS = ["a", "b", "c"]


def head(reads=32):
    widths = (reads, 1024, 128, 64, 16, 1)
    shapes = {f"layers.{i}.weight": (widths[k + 1], widths[k]) for k, i in enumerate((0, 2, 4, 6, 7))}
    return weights(shapes | {f"layers.{i}.bias": (widths[k + 1],) for k, i in enumerate((0, 2, 4, 6, 7))})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("aesthetic")
    torch.save(head(), made / FILE)
    openai = weights(clip_shapes(vision=128, text=64, layers=(1, 1), length=16))
    config = infer_config(openai, 64, 64, hidden_act="quick_gelu")
    fill_model("openai", CLIPModel, config, rename(openai)).save_pretrained(made / "clip")
    return made


@pytest.fixture(scope="module")
def scorer(folder):
    return AestheticScorer(folder, clip=str(folder / "clip"))


@pytest.mark.parametrize("size", SIZES)
def test_ratings_are_those_of_the_original_code_whatever_the_text(scorer, size):
    # (63, 28) loses 35 rows: torchvision cuts round(17.5) = 18 above, where transformers cuts 17
    expected = torch.tensor(ORIGINAL["{}x{}".format(*size)])
    assert torch.allclose(scorer.score(pictures(*size, 3), TEXTS), expected, atol=1e-5)
    assert torch.equal(scorer.score(pictures(*size, 3), TEXTS), scorer.score(pictures(*size, 3), ["", "", ""]))
    assert expected.std() > 0.02


def test_it_is_a_scorer_that_scores_in_parts_as_at_once(folder, scorer):
    in_parts = AestheticScorer(folder / FILE, clip=str(folder / "clip"), max_pairs=2)
    together = scorer.score(pictures(28, 28, 3), TEXTS)
    assert isinstance(scorer, Scorer) and together.dtype == torch.float32 and not together.requires_grad
    assert torch.allclose(in_parts.score(pictures(28, 28, 3), TEXTS), together, atol=1e-6)
    assert in_parts.revision == scorer.revision and scorer.num_truncated == 0
    assert scorer.score(pictures(28, 28)[:0], []).shape == (0,)


def test_pictures_in_another_form_and_pairs_without_a_partner_are_refused(scorer):
    with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
        scorer.score(pictures(28, 28, 3).float(), TEXTS)
    with pytest.raises(ValueError, match="3 pictures and 2 texts"):
        scorer.score(pictures(28, 28, 3), TEXTS[:2])


def test_a_number_that_is_not_finite_is_no_verdict_and_the_others_keep_theirs(scorer, monkeypatch):
    rate = scorer._rate
    monkeypatch.setattr(scorer, "_rate", lambda seen: rate(seen) + torch.tensor([0, torch.nan, -torch.inf]))
    scores = scorer.score(pictures(28, 28, 3), TEXTS)
    assert scores[1:].isnan().all() and scores[0] == pytest.approx(ORIGINAL["28x28"][0], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers.0.weight": None}, "layers.0.weight is not as in a head of five linear layers"),
        # the variant with activations between its layers counts them: 0, 3, 6, 9, 11
        ({"layers.2.weight": None, "layers.3.weight": torch.zeros(128, 1024)}, "layers.2.weight is not as in"),
        (head(768), "reads 768 numbers, and .*clip gives 32. Set clip to the CLIP that it was made for"),
    ],
)
def test_a_head_that_is_not_right_is_named_in_one_line(folder, tmp_path, change, message):
    found = {name: weight for name, weight in (head() | change).items() if weight is not None}
    torch.save(found, tmp_path / "head.pth")
    with pytest.raises(UserError, match=message) as caught:
        AestheticScorer(tmp_path / "head.pth", clip=str(folder / "clip"))
    assert "\n" not in str(caught.value) and "head.pth" in str(caught.value)


def test_absent_files_say_the_way_out(folder, tmp_path):
    with pytest.raises(UserError, match=r"ava1-l14-linearMSE.pth .* Give that file, its folder"):
        AestheticScorer(tmp_path, clip=str(folder / "clip"))
    with pytest.raises(UserError, match=r"has no config\.json"):
        AestheticScorer(folder, clip=str(tmp_path))
