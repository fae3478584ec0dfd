"""`Owlv2` on a tiny random checkpoint in the published format, and its rules on numbers made by hand."""

import pytest
import torch
from PIL import Image
from tests.judges.tiny_detectors import TEXT_SPOILS, owlv2, pictures, spoilt
from transformers import AutoTokenizer, Owlv2ForObjectDetection, Owlv2Processor
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

from thinkdraw.errors import UserError
from thinkdraw.judges.detectors.owlv2 import Owlv2
from thinkdraw.types import Detector

ASKED = [["cat", "wooden bench"], ["dog"], ["traffic light", "red car", "cat"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return owlv2(tmp_path_factory.mktemp("owlv2"))


@pytest.fixture(scope="module")
def judge(folder):
    return Owlv2(folder)


@pytest.mark.parametrize("shape", [(48, 72), (72, 48)])
def test_detections_are_those_of_plain_transformers_in_pixels_of_the_longer_side(folder, judge, shape):
    model = Owlv2ForObjectDetection.from_pretrained(folder).eval()
    processor = Owlv2Processor(Owlv2ImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))
    seen = pictures(3, *shape)
    for picture, names, found in zip(seen, ASKED, judge.detect(seen, ASKED), strict=True):
        queries = [[f"a photo of a {name}" for name in names]]
        with torch.no_grad():
            out = model(**processor(images=Image.fromarray(picture.numpy()), text=queries, return_tensors="pt"))
        published = processor.post_process_grounded_object_detection(
            out, threshold=0.1, target_sizes=[shape], text_labels=[names]
        )[0]
        expected = sorted(
            zip(published["scores"].tolist(), published["text_labels"], published["boxes"].tolist(), strict=True),
            reverse=True,
        )
        assert len(found) == len(expected) > 3
        for detection, (score, label, box) in zip(found, expected, strict=True):
            assert detection.label == label and detection.score == pytest.approx(score, abs=1e-5)
            assert detection.box == pytest.approx(box, abs=1e-3)  # of 72 pixels: 1e-5 of the side
    assert isinstance(judge, Detector)


def test_a_pictures_detections_do_not_depend_on_those_beside_it(folder, judge):
    together = judge.detect(pictures(3), ASKED)
    one_by_one = [judge.detect(pictures(3)[i : i + 1], ASKED[i : i + 1])[0] for i in range(3)]
    in_parts = Owlv2(folder, max_pictures=2).detect(pictures(3), ASKED)
    for other in (one_by_one, in_parts):
        for found, again in zip(together, other, strict=True):
            assert [d.label for d in found] == [d.label for d in again]
            assert [d.score for d in found] == pytest.approx([d.score for d in again], abs=1e-5)


def given(folder, monkeypatch, logits, boxes, **settings):
    """A judge whose model finds `boxes` (N, 4) with `logits` (N, L) in every picture."""
    judge = Owlv2(folder, **settings)
    monkeypatch.setattr(judge.model, "box_predictor", lambda seen, _: torch.tensor([boxes] * len(seen)))
    monkeypatch.setattr(judge.model, "class_predictor", lambda *_: (torch.tensor([logits]), None))
    return judge


# Fractions of 72 pixels: centre (18, 36), size (18, 36); the second box is the first, half a width to the right:
# shared 9 × 36 = 324, union 2 × 648 − 324 = 972, IoU 1/3.
BOXES = [[0.25, 0.5, 0.25, 0.5], [0.375, 0.5, 0.25, 0.5], [0.25, 0.5, 0.25, 0.5]]


def test_a_box_goes_to_its_best_label_where_that_scores_above_the_threshold(folder, monkeypatch):
    # sigmoid(0) = 0.5, sigmoid(2) = 0.881, sigmoid(−2.2) = 0.0998
    judge = given(folder, monkeypatch, [[0.0, -1.0], [1.0, 2.0], [-2.2, -3.0]], BOXES)
    dog, cat = judge.detect(pictures(1), [["cat", "dog"]])[0]
    assert (dog.label, cat.label) == ("dog", "cat")
    assert (dog.score, cat.score) == pytest.approx((0.880797, 0.5), abs=1e-6)
    assert cat.box == pytest.approx((9, 18, 27, 54)) and dog.box == pytest.approx((18, 18, 36, 54))


@pytest.mark.parametrize(("max_overlap", "kept"), [(None, 3), (0.9, 2), (0.34, 2), (0.33, 1)])
def test_of_overlapping_boxes_of_one_label_the_surer_is_kept_if_asked_for(folder, monkeypatch, max_overlap, kept):
    judge = given(folder, monkeypatch, [[2.0], [1.0], [0.0]], BOXES, max_overlap=max_overlap)
    scores = [d.score for d in judge.detect(pictures(1), [["cat"]])[0]]
    assert len(scores) == kept and scores[0] == pytest.approx(0.880797, abs=1e-6)


def test_boxes_of_different_labels_may_overlap(folder, monkeypatch):
    judge = given(folder, monkeypatch, [[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]], BOXES, max_overlap=0.0)
    assert [d.label for d in judge.detect(pictures(1), [["cat", "dog"]])[0]] == ["cat", "dog"]


def test_numbers_that_are_not_finite_are_no_verdict(folder, monkeypatch):
    judge = given(folder, monkeypatch, [[2.0], [float("nan")], [0.0]], BOXES)
    assert judge.detect(pictures(2), [["cat"], []]) == [None, []]
    judge = given(folder, monkeypatch, [[2.0], [1.0], [0.0]], [[float("inf")] * 4, *BOXES[1:]])
    assert judge.detect(pictures(1), [["cat"]]) == [None]


def test_what_cannot_be_judged_is_said_in_one_line(judge):
    with pytest.raises(UserError, match="finds only what it is asked for, and was given no labels"):
        judge.detect(pictures(1))
    # 4 words of the query, 11 × "cat" and the two specials
    with pytest.raises(UserError, match=r"reads 16 tokens and was asked to find 'cat cat .* is 17"):
        judge.detect(pictures(1), [[" ".join(["cat"] * 11)]])
    with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
        judge.detect(pictures(1).permute(0, 3, 1, 2), [["cat"]])


@pytest.mark.parametrize("settings", [{"threshold": 1.5}, {"max_overlap": -0.1}, {"max_pictures": 0}])
def test_settings_out_of_range_are_refused(folder, settings):
    with pytest.raises(UserError, match=f"{next(iter(settings.values()))}"):
        Owlv2(folder, **settings)


@pytest.mark.parametrize(("spoil", "message"), TEXT_SPOILS)
def test_a_checkpoint_that_is_not_right_is_named_in_one_line(folder, tmp_path, spoil, message):
    with pytest.raises(UserError, match=message) as caught:
        Owlv2(spoilt(folder, tmp_path / "owlv2", spoil))
    assert "\n" not in str(caught.value)


def test_the_revision_follows_the_weights(folder, judge):
    changed = Owlv2(folder)
    assert changed.revision == judge.revision
    del changed.revision
    changed.model.layer_norm.weight.data += 1
    assert changed.revision != judge.revision
