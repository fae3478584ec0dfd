"""`GroundingDino` on tiny random checkpoints in the published format, and its rules on logits made by hand."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from tests.judges.tiny_detectors import TEXT_SPOILS, grounding_dino, pictures, spoilt
from transformers import AutoTokenizer, GroundingDinoForObjectDetection, GroundingDinoProcessor
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

from thinkdraw.errors import UserError
from thinkdraw.judges.detectors.grounding_dino import GroundingDino
from thinkdraw.types import Detector

ASKED = [["Cat", "wooden bench"], ["dog"], ["traffic light.", "red car", "tv remote", "cat"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return grounding_dino(tmp_path_factory.mktemp("dino"))


@pytest.fixture(scope="module")
def judge(folder):
    return GroundingDino(folder)


def test_boxes_and_scores_are_those_of_plain_transformers_in_the_pixels_of_a_picture_that_is_not_square(folder, judge):
    model = GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    processor = GroundingDinoProcessor(
        GroundingDinoImageProcessorPil.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    )
    inputs = processor(
        images=Image.fromarray(pictures(1)[0].numpy()), text=[["Cat", "wooden bench"]], return_tensors="pt"
    )
    with torch.no_grad():
        out = model(**inputs)
    published = processor.post_process_grounded_object_detection(
        out, threshold=0.35, text_threshold=0.25, target_sizes=[(48, 72)]
    )[0]
    # [CLS] cat . wooden bench . [SEP]
    tokens = out.logits[0].sigmoid()
    by_label = {"Cat": tokens[:, 1], "wooden bench": tokens[:, 3:5].amax(1)}
    kept = tokens.amax(1) > 0.35
    expected = sorted(
        ((float(s), label, *box) for label, scores in by_label.items()
         for s, box in zip(scores[kept], published["boxes"].tolist(), strict=True) if s > 0.25),
        reverse=True,
    )  # fmt: skip
    found = judge.detect(pictures(1), ASKED[:1])[0]
    assert len(found) == len(expected) > 3 and {d.label for d in found} == {"Cat", "wooden bench"}
    for detection, (score, label, *box) in zip(found, expected, strict=True):
        assert detection.label == label and detection.score == pytest.approx(score, abs=1e-5)
        assert detection.box == pytest.approx(box, abs=1e-3)  # of 72 pixels: 1e-5 of the side
    assert isinstance(judge, Detector)


def test_a_pictures_detections_do_not_depend_on_those_beside_it(folder, judge):
    together = judge.detect(pictures(3), ASKED)
    one_by_one = [judge.detect(pictures(3)[i : i + 1], ASKED[i : i + 1])[0] for i in range(3)]
    in_parts = GroundingDino(folder, max_pictures=2).detect(pictures(3), ASKED)
    for other in (one_by_one, in_parts):
        for found, again in zip(together, other, strict=True):
            assert [d.label for d in found] == [d.label for d in again] and len(found) > 2
            assert [d.score for d in found] == pytest.approx([d.score for d in again], abs=1e-4)


def test_mm_grounding_dino_is_read_by_the_same_judge(tmp_path):
    judge = GroundingDino(grounding_dino(tmp_path, mm=True), box_threshold=0.0, text_threshold=0.0)
    assert type(judge.model).__name__ == "MMGroundingDinoForObjectDetection"
    assert {d.label for d in judge.detect(pictures(1), [["cat", "dog"]])[0]} == {"cat", "dog"}


class Given:
    """In the model's place: probabilities (B, N, T) of boxes against tokens, −∞ behind them, and boxes (B, N, 4)."""

    def __init__(self, config, probabilities, boxes=None):
        logits = torch.logit(torch.as_tensor(probabilities))
        self.config = config
        self.logits = torch.nn.functional.pad(logits, (0, 256 - logits.shape[2]), value=-torch.inf)
        self.boxes = torch.full((*logits.shape[:2], 4), 0.5) if boxes is None else torch.tensor(boxes)

    def __call__(self, **inputs):
        return SimpleNamespace(logits=self.logits, pred_boxes=self.boxes)


def given(folder, probabilities, boxes=None, **settings):
    judge = GroundingDino(folder, **settings)
    judge.model = Given(judge.model.config, probabilities, boxes)
    return judge


# tokens: [CLS] dog . red dog . [SEP]
DOGS = [[[0.01, 0.5, 0.01, 0.01, 0.01, 0.01, 0.01], [0.01, 0.2, 0.01, 0.9, 0.26, 0.01, 0.01]]]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [("red dog", 0.9), ("dog", 0.5)]),
        ({"pooling": "mean"}, [("red dog", 0.58), ("dog", 0.5)]),  # (0.9 + 0.26) / 2
        ({"text_threshold": 0.1}, [("red dog", 0.9), ("dog", 0.5), ("dog", 0.2)]),
        ({"box_threshold": 0.6}, [("red dog", 0.9)]),
        ({"pooling": "mean", "box_threshold": 0.3, "text_threshold": 0.55}, [("red dog", 0.58)]),
    ],
)
def test_a_label_scores_by_its_own_tokens_even_where_another_label_has_the_same_word(folder, settings, expected):
    found = given(folder, DOGS, **settings).detect(pictures(1), [["dog", "red dog"]])[0]
    assert [d.label for d in found] == [label for label, _ in expected]
    assert [d.score for d in found] == pytest.approx([score for _, score in expected], abs=1e-6)


def test_a_box_is_looked_at_for_its_best_token_whichever_that_is_and_a_label_for_its_own(folder):
    # [CLS] dog . [SEP]: the full stop lifts the first box over 0.35; 0.25 is not above 0.25
    found = given(folder, [[[0.01, 0.3, 0.4, 0.01], [0.01, 0.25, 0.4, 0.01], [0.01, 0.3, 0.3, 0.01]]])
    assert [d.score for d in found.detect(pictures(1), [["dog"]])[0]] == pytest.approx([0.3])


def test_a_box_of_centre_and_size_becomes_corners_in_pixels(folder):
    # centre (0.5 × 72, 0.25 × 48) = (36, 12), half sizes (0.25 × 72 / 2, 0.5 × 48 / 2) = (9, 12)
    judge = given(folder, [[[0.01, 0.9, 0.01, 0.01]]], [[[0.5, 0.25, 0.25, 0.5]]])
    assert judge.detect(pictures(1), [["dog"]])[0][0].box == pytest.approx((27, 0, 45, 24))


def test_numbers_that_are_not_finite_are_no_verdict_on_that_picture_alone(folder):
    good = [0.01, 0.9, 0.01, 0.01]
    judge = given(
        folder, [[good], [[0.01, float("nan"), 0.01, 0.01]], [good]], [[[0.5] * 4]] * 2 + [[[float("inf")] * 4]]
    )
    seen, broken, outside = judge.detect(pictures(3), [["dog"]] * 3)
    assert len(seen) == 1 and broken is None and outside is None


def test_labels_come_back_as_asked_once_each_and_none_asked_is_none_found(folder, judge):
    found = judge.detect(pictures(3), [["Traffic  Light.", "traffic light", "Cat", "Cat"], [], ["dog?"]])
    assert {d.label for d in found[0]} <= {"Traffic  Light.", "Cat"} and found[1] == []
    assert {d.label for d in found[2]} == {"dog?"}
    again = judge.detect(pictures(1), [["traffic light", "cat"]])[0]
    assert [d.score for d in found[0]] == pytest.approx([d.score for d in again], abs=1e-4)


def test_what_cannot_be_judged_is_said_in_one_line(judge):
    with pytest.raises(UserError, match="finds only what it is asked for, and was given no labels"):
        judge.detect(pictures(1))
    with pytest.raises(UserError, match="was asked to find ' '"):
        judge.detect(pictures(1), [["cat", " "]])
    with pytest.raises(UserError, match="sees no word in it"):
        judge.detect(pictures(1), [["cat", "?."]])
    with pytest.raises(UserError, match="reads 256 tokens and was asked for names of 302"):  # 100 × "cat n ." and 2
        judge.detect(pictures(1), [[f"cat {i}" for i in range(100)]])
    with pytest.raises(ValueError, match="1 pictures and 2 lists"):
        judge.detect(pictures(1), [["cat"], ["dog"]])
    with pytest.raises(ValueError, match=r"expected uint8 \(B, H, W, 3\)"):
        judge.detect(pictures(1).float(), [["cat"]])
    assert judge.detect(pictures(1)[:0], []) == []


@pytest.mark.parametrize(
    "settings", [{"box_threshold": 1.5}, {"text_threshold": -0.1}, {"pooling": "sum"}, {"max_pictures": 0}]
)
def test_settings_out_of_range_are_refused(folder, settings):
    with pytest.raises(UserError, match=f"{next(iter(settings.values()))}"):
        GroundingDino(folder, **settings)


@pytest.mark.parametrize(("spoil", "message"), TEXT_SPOILS)
def test_a_checkpoint_that_is_not_right_is_named_in_one_line(folder, tmp_path, spoil, message):
    with pytest.raises(UserError, match=message) as caught:
        GroundingDino(spoilt(folder, tmp_path / "dino", spoil))
    assert "\n" not in str(caught.value)


def test_the_revision_follows_the_weights(folder, judge):
    other = GroundingDino(folder)
    assert other.revision == judge.revision and len(judge.revision) == 12
    changed = GroundingDino(folder)
    changed.model.model.level_embed.data += 1
    assert changed.revision != judge.revision
