"""`Mask2Former` on a tiny random checkpoint in the published format, and mmdet's rules on logits made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.judges.tiny_detectors import SPOILS, mask2former, pictures, spoilt
from transformers import Mask2FormerForUniversalSegmentation

from thinkdraw.errors import UserError
from thinkdraw.judges.detectors.mask2former import MEAN, STD, Mask2Former, preprocess, tight_box
from thinkdraw.types import Detector

SMALL = {"short_side": 64, "long_side": 107, "min_score": 0.0}  # of 800 and 1333; random weights are never sure


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mask2former(tmp_path_factory.mktemp("mask2former"))


@pytest.fixture(scope="module")
def judge(folder):
    return Mask2Former(folder, **SMALL)


def bilinear(values, size):
    """(…, h, w) float64 → (…, *size): pixel centres at halves, edges repeated, no antialiasing; written out."""
    for axis, new in ((-2, size[0]), (-1, size[1])):
        old = values.shape[axis]
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape((-1, 1) if axis == -2 else (-1,))
        values = np.take(values, low, axis) * (1 - share) + np.take(values, np.minimum(low + 1, old - 1), axis) * share
    return values


def test_detections_are_those_of_the_published_recipe_written_out(folder, judge):
    # 48 × 72: the scale is min(107 / 72, 64 / 48) = 1.333, so 64 × 96, which 32 divides
    seen = bilinear(pictures(1)[0].permute(2, 0, 1).numpy().astype(float), (64, 96)).round()
    pixels = (seen - np.array(MEAN).reshape(3, 1, 1)) / np.array(STD).reshape(3, 1, 1)
    model = Mask2FormerForUniversalSegmentation.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(torch.from_numpy(pixels[None]).float())
    classes = np.exp(out.class_queries_logits[0].double().numpy())
    classes = (classes / classes.sum(1, keepdims=True))[:, :80].ravel()
    masks = bilinear(bilinear(out.masks_queries_logits[0].double().numpy(), (64, 96)), (48, 72))
    expected = []
    for pair in np.argsort(-classes)[:100]:
        logits = masks[pair // 80]
        inside = logits > 0
        sure = (inside / (1 + np.exp(-logits))).sum() / (inside.sum() + 1e-6)
        rows, columns = np.nonzero(inside)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if inside.any() else (0, 0, 0, 0)
        expected.append((classes[pair] * sure, f"class {pair % 80}", box, inside))
    expected.sort(key=lambda row: -row[0])
    found = judge.detect(pictures(1))[0]
    assert len(found) == len(expected) == 100 and len({d.label for d in found}) > 5
    assert [d.score for d in found] == pytest.approx([row[0] for row in expected], abs=1e-5)
    assert [d.label for d in found] == [row[1] for row in expected]
    agreement = [(d.mask == row[3]).mean() for d, row in zip(found, expected, strict=True)]
    assert min(agreement) > 0.999 and np.mean([d.box == row[2] for d, row in zip(found, expected, strict=True)]) > 0.97
    assert isinstance(judge, Detector) and judge.name == "hf-mask2former"


def test_a_pictures_detections_do_not_depend_on_those_beside_it(folder, judge):
    together = judge.detect(pictures(3))
    one_by_one = [judge.detect(pictures(3)[i : i + 1])[0] for i in range(3)]
    in_parts = Mask2Former(folder, max_pictures=2, **SMALL).detect(pictures(3))
    for other in (one_by_one, in_parts):
        for found, again in zip(together, other, strict=True):
            assert [d.score for d in found] == pytest.approx([d.score for d in again], abs=1e-5)


@pytest.mark.parametrize(
    ("size", "inner", "padded"),
    [
        ((512, 512), (800, 800), (800, 800)),
        ((480, 640), (800, 1067), (800, 1088)),  # × 800 / 480: 640 × 1.6667 = 1066.7
        ((640, 480), (1067, 800), (1088, 800)),
        ((100, 400), (333, 1333), (352, 1344)),  # × 1333 / 400 = 3.3325
        ((1024, 1024), (800, 800), (800, 800)),
    ],
)
def test_a_picture_is_scaled_to_fit_into_800_by_1333_and_padded_with_grey_128_to_multiples_of_32(size, inner, padded):
    pixels, found = preprocess(torch.zeros(1, *size, 3, dtype=torch.uint8), 800, 1333)
    assert found == inner and tuple(pixels.shape) == (1, 3, *padded)
    black = [(0 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    grey = [(128 - mean) / std for mean, std in zip(MEAN, STD, strict=True)]
    assert pixels[0, :, inner[0] - 1, inner[1] - 1].tolist() == pytest.approx(black, abs=1e-5)
    if padded != inner:
        assert pixels[0, :, -1, -1].tolist() == pytest.approx(grey, abs=1e-5)


def test_red_comes_first():
    picture = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(1, 32, 32, 3)
    # (255 − 123.675) / 58.395 = 2.2489; (0 − 103.53) / 57.375 = −1.8044
    pixels, _ = preprocess(picture, 32, 32)
    assert pixels[0, :, 5, 5].tolist() == pytest.approx([2.24891, -2.03571, -1.80444], abs=1e-4)


# The red channel of a picture, and what OpenCV 5.0's resize(…, INTER_LINEAR) makes of it at 8 × 11 and at 3 × 4.
RED = [
    [139, 241, 6, 106, 188, 229, 10],
    [86, 66, 213, 167, 81, 153, 76],
    [250, 50, 112, 233, 89, 6, 143],
    [210, 166, 189, 33, 30, 202, 220],
    [122, 77, 115, 230, 240, 184, 63],
]
OPENCV_8_11 = [
    [139, 185, 219, 70, 42, 106, 158, 199, 225, 110, 10],
    [116, 138, 158, 115, 110, 133, 138, 156, 191, 110, 39],
    [96, 82, 78, 168, 194, 171, 114, 98, 138, 109, 80],
    [199, 133, 63, 119, 169, 212, 132, 77, 55, 90, 122],
    [237, 169, 91, 122, 149, 170, 107, 70, 67, 121, 167],
    [212, 188, 161, 177, 134, 45, 38, 76, 175, 204, 215],
    [160, 140, 119, 139, 146, 144, 146, 160, 188, 159, 132],
    [122, 102, 80, 105, 157, 230, 236, 225, 189, 118, 63],
]
OPENCV_3_4 = [[144, 81, 149, 96], [175, 127, 107, 92], [135, 143, 169, 143]]


@pytest.mark.parametrize(("limits", "expected"), [((8, 11), OPENCV_8_11), ((3, 4), OPENCV_3_4)])
def test_resizing_is_opencvs_within_one_level(limits, expected):
    # 5 × 7 into (8, 11): × min(11 / 7, 8 / 5) = 1.571: 7.857 → 8 rows, 11 columns. Into (3, 4): × 0.571: 2.86 → 3, 4
    picture = torch.tensor(RED, dtype=torch.uint8)[None, :, :, None].expand(1, 5, 7, 3)
    pixels, inner = preprocess(picture, *limits)
    assert inner == np.array(expected).shape
    red = pixels[0, 0, : inner[0], : inner[1]] * STD[0] + MEAN[0]
    assert (red - torch.tensor(expected)).abs().max() < 1.001


class Given:
    """In the model's place: class logits (B, Q, 81) and mask logits (B, Q, h, w)."""

    def __init__(self, classes, masks):
        self.answer = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks)

    def __call__(self, pixels):
        return self.answer


def given(folder, classes, masks, **settings):
    judge = Mask2Former(folder, **{"short_side": 32, "long_side": 32, "min_score": 0.0} | settings)
    judge.model = Given(classes, masks)
    return judge


def two_queries(count=1):
    """Query 0: class 2 with e³ : e¹ against class 5, and a mask of columns 8..15; query 1: class 7, nothing in its mask."""
    classes = torch.full((count, 2, 81), -30.0)
    classes[:, 0, 2], classes[:, 0, 5], classes[:, 0, 80] = 3.0, 1.0, 0.0
    classes[:, 1, 7] = 5.0
    masks = torch.full((count, 2, 32, 32), -2.0)
    masks[:, 0, :, 8:16] = 2.0
    return classes, masks


def test_one_query_is_found_under_each_of_its_classes_and_an_empty_mask_scores_nothing(folder):
    found = given(folder, *two_queries()).detect(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))[0]
    first, second = found[:2]
    # e³ / (e³ + e + 1) = 0.84379, e / (e³ + e + 1) = 0.11420; sigmoid(2) = 0.88080 everywhere in the mask
    assert (first.label, second.label) == ("class 2", "class 5")
    assert (first.score, second.score) == pytest.approx((0.84379 * 0.88080, 0.11420 * 0.88080), abs=1e-5)
    assert first.box == second.box == (8, 0, 16, 32) and first.mask.sum() == 8 * 32
    empty = [d for d in found if d.label == "class 7"][-1]  # query 1's; query 0 has it at e⁻³⁰
    assert empty.score == 0 and empty.box == (0, 0, 0, 0) and not empty.mask.any()
    assert len(found) == 100  # of 2 × 80 pairs


def test_only_the_100_best_pairs_count_also_where_labels_are_asked_for(folder):
    classes = torch.zeros(1, 2, 81)
    classes[0, 1, :20] = 1.0  # query 0 and these 20 lead the 60 others of query 1
    classes[0, 0, :80] = 1.0
    masks = torch.full((1, 2, 32, 32), 2.0)
    judge = given(folder, classes, masks)
    picture = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    assert len(judge.detect(picture, [["class 3"]])[0]) == 2 and len(judge.detect(picture, [["class 30"]])[0]) == 1
    assert judge.detect(picture, [[]]) == [[]]


def test_weak_detections_can_be_left_out(folder):
    picture = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    # 0.743 and 0.101, and next to nothing
    assert [d.label for d in given(folder, *two_queries(), min_score=0.2).detect(picture)[0]] == ["class 2"]
    by_default = given(folder, *two_queries(), min_score=0.05).detect(picture)[0]
    assert [d.label for d in by_default] == ["class 2", "class 5"] and Mask2Former(folder).min_score == 0.05


def test_the_padding_of_a_picture_that_is_not_square_is_cut_off_its_masks(folder):
    # 16 × 32 fits into (32, 32) as it is and is padded to 32 × 32: the masks' lower half is outside the picture
    classes, masks = two_queries()
    masks[0, 0, :16], masks[0, 0, 16:] = -2.0, 2.0
    found = given(folder, classes, masks).detect(torch.zeros(1, 16, 32, 3, dtype=torch.uint8))[0]
    assert found[0].mask.shape == (16, 32) and not found[0].mask.any()


def test_numbers_that_are_not_finite_are_no_verdict_on_that_picture_alone(folder):
    classes, masks = two_queries(3)
    classes[1, 0, 80], masks[2, 1, 4, 4] = float("nan"), float("inf")
    seen, broken, outside = given(folder, classes, masks).detect(torch.zeros(3, 32, 32, 3, dtype=torch.uint8))
    assert len(seen) == 100 and broken is None and outside is None


def test_a_tight_box_ends_behind_the_last_pixel():
    mask = torch.zeros(6, 9, dtype=torch.bool)
    assert tight_box(mask) == (0, 0, 0, 0)
    mask[2, 3] = True
    assert tight_box(mask) == (3, 2, 4, 3)
    mask[4, 7] = True
    assert tight_box(mask) == (3, 2, 8, 5)


def test_names_come_from_the_file_by_index(folder, tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("\n".join(f"thing {i}" for i in range(80)) + "\n")
    judge = given(folder, *two_queries(), names_file=file)
    picture = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
    assert judge.detect(picture)[0][0].label == "thing 2"
    assert {d.label for d in judge.detect(picture, [["thing 5"]])[0]} == {"thing 5"}
    with pytest.raises(UserError, match="has no name 'thing 99': did you mean thing "):
        judge.detect(picture, [["thing 99"]])


def test_genevals_own_names_fit(folder, shared_dir):
    names = Mask2Former(folder, names_file=shared_dir / "benchmarks" / "geneval" / "object_names.txt").names
    assert (names[0], names[62], names[64], names[65], names[79]) == (
        "person", "tv", "computer mouse", "tv remote", "toothbrush",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a"] * 80, "has 80 lines and 1 distinct names"),
        ([f"{i}" for i in range(79)], "has 79 lines and 79 distinct names"),
        ([*(f"{i}" for i in range(79)), ""], "has 79 lines"),
        ([*(f"{i}" for i in range(79)), "", "x"], "has 81 lines and 80 distinct names"),
    ],
)
def test_a_names_file_that_does_not_fit_is_refused(folder, tmp_path, lines, message):
    (tmp_path / "names.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=message):
        Mask2Former(folder, names_file=tmp_path / "names.txt")
    with pytest.raises(UserError, match="cannot be read"):
        Mask2Former(folder, names_file=tmp_path / "no_names.txt")


def test_a_panoptic_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match="tells 133 classes apart, not COCO's 80"):
        Mask2Former(mask2former(tmp_path, num_classes=133))


@pytest.mark.parametrize("settings", [{"min_score": 1.5}, {"short_side": 0}, {"long_side": 700}, {"max_pictures": 0}])
def test_settings_out_of_range_are_refused(folder, settings):
    with pytest.raises(UserError, match=f"{next(iter(settings.values()))}"):
        Mask2Former(folder, **settings)


def test_pictures_in_another_form_are_refused(judge):
    with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
        judge.detect(pictures(1).float())
    with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
        judge.detect(pictures(1)[0])
    assert judge.detect(pictures(1)[:0]) == []


@pytest.mark.parametrize(("spoil", "message"), SPOILS)
def test_a_checkpoint_that_is_not_right_is_named_in_one_line(folder, tmp_path, spoil, message):
    with pytest.raises(UserError, match=message) as caught:
        Mask2Former(spoilt(folder, tmp_path / "mask2former", spoil))
    assert "\n" not in str(caught.value)


def test_the_revision_is_the_same_at_every_load_and_follows_the_weights(folder, judge):
    assert Mask2Former(folder).revision == judge.revision and len(judge.revision) == 12
    changed = Mask2Former(folder)
    changed.model.class_predictor.weight.data += 1
    assert changed.revision != judge.revision


def test_the_published_preprocessor_is_not_needed(folder, tmp_path):
    # it may ask for a 384-pixel square, which is not GenEval's
    Mask2Former(spoilt(folder, tmp_path / "mask2former", "preprocessor_config.json"))
