"""The detector against ground truth; the verdict that is taken here is the one that rewards and benchmarks share."""

import numpy as np
import pytest

from thinkdraw.lab.detector import background_of, detect_objects, squared_distances
from thinkdraw.lab.prompts import SPECS, stream
from thinkdraw.lab.scenes import BACKGROUNDS, COLORS, Scene, SceneObject, draw
from thinkdraw.lab.shapes import SHAPES, SIZES, TEXTURES
from thinkdraw.lab.specs import change_one_fact
from thinkdraw.rewards.lab_detector import judge

NUM_SCENES = 400


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("split", ["train", "ood"])
def test_rendered_scenes_are_verified_and_scenes_with_one_changed_fact_rejected(family, split):
    examples, rng = stream(family, split, 0), np.random.default_rng(0)
    verified = rejected = 0
    for _ in range(NUM_SCENES):
        example = next(examples)
        scene = example.scene(rng)
        verified += judge(draw(scene), example.prompt).correct
        rejected += not judge(draw(change_one_fact(example.spec, scene, rng)), example.prompt).correct
    assert verified >= 0.995 * NUM_SCENES and rejected >= 0.995 * NUM_SCENES


def test_every_look_is_recognised_on_every_background():
    for shape in SHAPES:
        for index, color in enumerate(COLORS):
            size, texture = SIZES[index % 2], TEXTURES[index % 3]
            for background in BACKGROUNDS:
                found = detect_objects(draw(Scene((SceneObject(shape, color, size, texture, 2, 3),), background)))
                (seen,) = found.detections
                assert (seen.label, seen.attributes) == (shape, {"color": color, "size": size, "texture": texture})
                assert found.background == background and seen.score == 1.0


def test_boxes_and_masks_are_tight():
    (seen,) = detect_objects(draw(Scene((SceneObject("square", "red", "large", "striped", 1, 2),)))).detections
    assert seen.box == (16, 8, 32, 24)
    assert seen.mask is not None and seen.mask.sum() == 16 * 16 and seen.mask[8:24, 16:32].all()


def test_an_empty_picture_has_a_background_and_nothing_else():
    for name in BACKGROUNDS:
        picture = draw(Scene((), name))
        assert background_of(picture) == name and detect_objects(picture).detections == []


def test_noise_is_not_a_thing():
    rng = np.random.default_rng(0)
    seen = [detect_objects(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(10)]
    assert sum(d.score > 0.3 for found in seen for d in found.detections) == 0


def test_slightly_noisy_pictures_are_read_as_clean_ones():
    rng = np.random.default_rng(0)
    examples = stream("geneval", "train", 5)
    for _ in range(40):
        example = next(examples)
        picture = draw(example.scene(rng)).astype(int) + rng.normal(0, 8, (64, 64, 3))
        assert judge(picture.clip(0, 255).astype(np.uint8), example.prompt).correct


def test_distances_between_colours_are_exact():
    rng = np.random.default_rng(0)
    pixels = np.concatenate([rng.integers(0, 256, (500, 3)), [[0, 0, 0], [255, 255, 255]]])
    colors = np.array([*COLORS.values(), *BACKGROUNDS.values()])
    wanted = ((pixels[:, None] - colors) ** 2).sum(-1)
    assert np.array_equal(squared_distances(pixels.astype(np.float32), colors.astype(np.float32)), wanted)
