"""`ClipColour` on a tiny random CLIP in the published format: GenEval's crops, templates and choice."""

import numpy as np
import pytest
import torch
from PIL import Image
from tests.judges.tiny_detectors import SPOILS, clip, pictures, spoilt
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from thinkdraw.errors import UserError
from thinkdraw.judges.detectors.colour import COLORS, ClipColour, NoVerdict, cut_out, preprocess
from thinkdraw.rewards import rules
from thinkdraw.types import Detection


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def judge(folder):
    return ClipColour(folder)


def blocks(count, size=20):
    """Square boxes at many places of a picture of 48 × 72."""
    rng = np.random.default_rng(1)
    corners = rng.integers(0, [72 - size, 48 - size], (count, 2)).tolist()
    return [Detection("cat", (float(x), float(y), float(x + size), float(y + size)), 0.9) for x, y in corners]


def test_logits_are_those_of_plain_transformers_over_three_templates(folder, judge):
    model = CLIPModel.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), CLIPImageProcessorPil.from_pretrained(folder)
    picture, boxes = pictures(1)[0], blocks(12)
    crops = [Image.fromarray(picture.numpy()).crop(d.box) for d in boxes]
    directions = []
    with torch.no_grad():
        seen = model.get_image_features(**processor(crops, return_tensors="pt")).pooler_output
        for color in rules.COLORS:
            texts = [f"a photo of a {color} cat", f"a photo of a {color}-colored cat", f"a photo of a {color} object"]
            read = model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt")).pooler_output
            mean = (read / read.norm(dim=1, keepdim=True)).mean(0)
            directions.append(mean / mean.norm())
    expected = 100 * (seen / seen.norm(dim=1, keepdim=True)) @ torch.stack(directions).T
    logits = judge.logits(Image.fromarray(picture.numpy()), "cat", boxes)
    assert torch.allclose(logits / 100, expected / 100, atol=1e-5)
    colors = judge.color_of(picture)("cat", boxes)
    assert colors == [COLORS[k] for k in expected.argmax(1).tolist()] and len(set(colors)) > 1
    assert COLORS == rules.COLORS


def test_a_class_is_part_of_what_is_asked(judge):
    image = Image.fromarray(pictures(1)[0].numpy())
    assert not torch.allclose(judge.logits(image, "cat", blocks(3)), judge.logits(image, "dog", blocks(3)), atol=1e-2)


def test_crops_judged_apart_or_together_have_the_same_colours(folder, judge):
    picture, boxes = pictures(1)[0], blocks(7)
    together = judge.color_of(picture)("cat", boxes)
    assert together == [judge.color_of(picture)("cat", [d])[0] for d in boxes]
    assert together == ClipColour(folder, max_crops=3).color_of(picture)("cat", boxes)
    assert judge.color_of(picture)("cat", []) == []


def test_what_is_outside_the_mask_is_grey_153_and_box_edges_are_rounded_halves_to_even():
    image = Image.new("RGB", (10, 8), (255, 0, 0))
    mask = np.zeros((8, 10), dtype=bool)
    mask[:, 3:] = True
    # 0.5 → 0, 1.5 → 2, 4.5 → 4, 7.5 → 8
    crop = cut_out(image, Detection("cat", (0.5, 1.5, 4.5, 7.5), 0.9, mask=mask))
    assert crop.size == (4, 6)
    assert [crop.getpixel((x, 0)) for x in range(4)] == [(153, 153, 153)] * 3 + [(255, 0, 0)]
    assert cut_out(image, Detection("cat", (0.5, 1.5, 4.5, 7.5), 0.9)).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(20, 20), (28, 28), (40, 60), (60, 40), (300, 100)])
def test_a_crop_is_seen_as_the_published_processor_sees_it(folder, size):
    # the long side becomes 28, 28, 42, 42 and 84: 0, 0, 14, 14 and 56 pixels too many, so the middle is exact
    crop = Image.fromarray(pictures(1, size[1], size[0])[0].numpy())
    expected = CLIPImageProcessorPil.from_pretrained(folder)([crop], return_tensors="pt").pixel_values[0]
    assert torch.allclose(preprocess(crop, 28), expected, atol=1e-5)


def test_an_odd_surplus_is_cut_as_geneval_does_and_not_as_transformers_does(folder):
    # 31 × 28: 3 columns too many, half is 1.5, rounded to even 2; transformers' processor begins at 1
    columns = np.broadcast_to(np.arange(31, dtype=np.uint8)[None, :, None], (28, 31, 3))
    crop = Image.fromarray(np.ascontiguousarray(columns))
    mean, std = 0.48145466, 0.26862954
    assert preprocess(crop, 28)[0, 0, 0].item() == pytest.approx((2 / 255 - mean) / std, abs=1e-5)
    theirs = CLIPImageProcessorPil.from_pretrained(folder)([crop], return_tensors="pt").pixel_values[0]
    assert theirs[0, 0, 0].item() == pytest.approx((1 / 255 - mean) / std, abs=1e-5)


def test_the_rules_take_it_as_it_is(judge):
    picture, boxes = pictures(1)[0], blocks(1)
    color = judge.color_of(picture)("cat", boxes)[0]
    metadata = {"include": [{"class": "cat", "count": 1, "color": color}]}
    assert rules.judge_picture(metadata, {"cat": boxes}, judge.color_of(picture)).correct
    metadata["include"][0]["color"] = next(c for c in COLORS if c != color)
    verdict = rules.judge_picture(metadata, {"cat": boxes}, judge.color_of(picture))
    assert not verdict.correct and f"and 1 {color}" in verdict.reason


def test_numbers_that_are_not_finite_and_boxes_without_a_pixel_are_no_verdict(folder, judge):
    broken = ClipColour(folder)
    broken.model.visual_projection.weight.data[0, 0] = float("nan")
    with pytest.raises(NoVerdict, match="not finite for a cat"):
        broken.color_of(pictures(1)[0])("cat", blocks(2))
    with pytest.raises(NoVerdict, match="holds no pixel"):
        judge.color_of(pictures(1)[0])("cat", [Detection("cat", (10.2, 3.0, 10.4, 9.0), 0.9)])


def test_a_mask_or_a_picture_of_another_form_is_refused(judge):
    wrong = Detection("cat", (0.0, 0.0, 4.0, 4.0), 0.9, mask=np.ones((72, 48), dtype=bool))
    with pytest.raises(ValueError, match=r"mask of \(72, 48\) on a picture of \(48, 72\)"):
        judge.color_of(pictures(1)[0])("cat", [wrong])
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        judge.color_of(pictures(1))
    with pytest.raises(ValueError, match=r"expected uint8 \(H, W, 3\)"):
        judge.color_of(pictures(1)[0].float())
    with pytest.raises(UserError, match="0 per forward pass"):
        ClipColour(judge.path, max_crops=0)


@pytest.mark.parametrize(
    ("spoil", "message"), [*SPOILS, ("tokenizer.json tokenizer_config.json", "its tokenizer knows no words")]
)
def test_a_checkpoint_that_is_not_right_is_named_in_one_line(folder, tmp_path, spoil, message):
    with pytest.raises(UserError, match=message) as caught:
        ClipColour(spoilt(folder, tmp_path / "clip", spoil))
    assert "\n" not in str(caught.value)
