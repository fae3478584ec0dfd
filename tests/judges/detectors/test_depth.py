"""`DepthEstimator` on a tiny random DPT-hybrid in the published format, and its maps from numbers made by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.judges.tiny_detectors import SPOILS, dpt, pictures, spoilt
from transformers import DPTForDepthEstimation
from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

from thinkdraw.errors import UserError
from thinkdraw.judges.detectors.depth import DepthEstimator


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return dpt(tmp_path_factory.mktemp("dpt"))


@pytest.fixture(scope="module")
def judge(folder):
    return DepthEstimator(folder)


def test_maps_are_those_of_plain_transformers_stored_as_8_bits(folder, judge):
    processor = DPTImageProcessorPil.from_pretrained(folder, size={"height": 480, "width": 480}, resample=2)
    model = DPTForDepthEstimation.from_pretrained(folder).eval()
    model.dpt.embeddings.image_size = (480, 480)
    seen = pictures(2)
    with torch.no_grad():
        raw = model(**processor(list(seen.numpy()), return_tensors="pt")).predicted_depth
    maps = judge.depth(seen)
    for near, found in zip(raw, maps, strict=True):
        near = (near - near.min()) / (near.max() - near.min())
        near = torch.nn.functional.interpolate(near[None, None], size=(48, 72), mode="bilinear", align_corners=True)
        expected = np.array(Image.fromarray(255 * near[0, 0].numpy()).convert("L")).astype(int)
        # equal but where float error carries a value over a step of the 8 bits
        steps = (found * 255).round().int().numpy() - expected
        assert abs(steps).max() <= 1 and (steps == 0).mean() > 0.99
    assert maps.shape == (2, 48, 72) and maps.dtype == torch.float32 and maps.std() > 0.01


def test_weights_that_the_published_checkpoint_lacks_are_not_made_up(folder, judge):
    # transformers' own class has four more and fills them with random numbers at every load
    assert DepthEstimator(folder).revision == judge.revision and len(judge.revision) == 12
    assert not [name for name in judge.model.state_dict() if "layers.0.residual_layer1" in name]


def given(folder, raw):
    """A judge whose model answers `raw` (B, h, w)."""
    judge = DepthEstimator(folder)
    judge.model = lambda pixels: SimpleNamespace(predicted_depth=torch.tensor(raw))
    return judge


def test_larger_is_nearer_and_every_map_is_stretched_to_its_own_range(folder):
    # DPT answers inverse depth. 2 × 2 → 3 × 3 with the corners kept: the middle is the mean of the four,
    # (0 + 1 + 2 + 4) / 4 / 4 = 0.4375, and 0.4375 × 255 = 111.56 is stored as 111
    small, large = given(folder, [[[0.0, 1.0], [2.0, 4.0]], [[10.0, 20.0], [30.0, 50.0]]]).depth(pictures(2, 3, 3))
    assert torch.allclose(small * 255, torch.tensor([[0.0, 31, 63], [63, 111, 159], [127, 191, 255]]), atol=1e-3)
    assert torch.equal(small, large)


def test_flat_maps_and_numbers_that_are_not_finite_are_no_verdict_on_that_picture_alone(folder):
    good, nan, inf = [[0.0, 1.0], [2.0, 4.0]], [[0.0, float("nan")], [2.0, 4.0]], [[0.0, float("inf")], [2.0, 4.0]]
    maps = given(folder, [good, nan, inf, [[3.0, 3.0], [3.0, 3.0]]]).depth(pictures(4, 4, 6))
    assert maps[0].isfinite().all() and maps[1:].isnan().all()


def test_a_pictures_map_does_not_depend_on_those_beside_it(folder, judge):
    together = judge.depth(pictures(3))
    one_by_one = DepthEstimator(folder, max_pictures=2).depth(pictures(3))
    assert (together - one_by_one).abs().max() <= 1.01 / 255  # float error may carry a value over one of 255 steps
    assert judge.depth(pictures(1)[:0]).shape == (0, 48, 72)


def test_pictures_in_another_form_are_refused(judge):
    with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
        judge.depth(pictures(1).float())
    with pytest.raises(UserError, match="0 per forward pass"):
        DepthEstimator(judge.path, max_pictures=0)


def test_a_dpt_of_another_kind_is_refused(folder, tmp_path):
    model = DPTForDepthEstimation.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"is_hybrid": False, "backbone_config": None}
    DPTForDepthEstimation(type(model.config)(**config)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="Give a hybrid one: Intel/dpt-hybrid-midas"):
        DepthEstimator(tmp_path)


@pytest.mark.parametrize(("spoil", "message"), SPOILS)
def test_a_checkpoint_that_is_not_right_is_named_in_one_line(folder, tmp_path, spoil, message):
    with pytest.raises(UserError, match=message) as caught:
        DepthEstimator(spoilt(folder, tmp_path / "dpt", spoil))
    assert "\n" not in str(caught.value)
