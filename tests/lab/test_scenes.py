import itertools

import numpy as np
import pytest

from thinkdraw.lab.scenes import BACKGROUNDS, COLORS, MIN_GAP, Scene, SceneObject, draw, random_scene
from thinkdraw.lab.shapes import CELL, SHAPES, SIZES, TEXTURES, ink, silhouette


@pytest.mark.parametrize("count", [1, 3, 5])
def test_objects_of_a_random_scene_keep_their_distance_on_one_axis(count):
    rng = np.random.default_rng(0)
    for _ in range(50):
        things = random_scene(count, rng).objects
        assert len(things) == count
        for a, b in itertools.combinations(things, 2):
            assert max(abs(a.row - b.row), abs(a.col - b.col)) >= MIN_GAP


def test_a_thing_covers_its_own_cell_only():
    thing = SceneObject("square", "red", "large", "solid", row=2, col=4)
    changed = (draw(Scene((thing,))) != draw(Scene(()))).any(-1)
    rows, cols = np.nonzero(changed)
    assert (rows.min(), rows.max() + 1) == (16, 16 + CELL) and (cols.min(), cols.max() + 1) == (32, 32 + CELL)


def test_a_solid_thing_has_its_palette_colour_on_its_silhouette():
    picture = draw(Scene((SceneObject("ring", "blue", "small", "solid", 0, 0),)))
    assert (picture[:CELL, :CELL][silhouette("ring", "small")] == COLORS["blue"]).all()


def test_no_two_looks_are_drawn_alike():
    looks = [(shape, size, texture) for shape in SHAPES for size in SIZES for texture in TEXTURES]
    drawn = {(silhouette(s, z) * (1 + ink(t).astype(int))).tobytes() for s, z, t in looks}
    assert len(drawn) == len(looks) == 16 * 2 * 3


def test_the_same_scene_is_drawn_the_same_and_backgrounds_differ():
    scene = random_scene(3, np.random.default_rng(1))
    assert (draw(scene) == draw(scene)).all()
    assert len({draw(Scene((), name)).tobytes() for name in BACKGROUNDS}) == len(BACKGROUNDS)


def test_an_unknown_shape_is_named():
    with pytest.raises(ValueError, match="shape='dog': the lab knows circle"):
        silhouette("dog", "small")
