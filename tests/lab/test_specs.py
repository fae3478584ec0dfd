import numpy as np
import pytest

from thinkdraw.lab.prompts import SPECS, stream
from thinkdraw.lab.scenes import Scene, SceneObject
from thinkdraw.lab.specs import (
    HELD_OUT_PAIRS,
    RELATIONS,
    ObjectSpec,
    Spec,
    change_one_fact,
    relation_holds,
    satisfies,
    scene_for,
)
from thinkdraw.rewards.rules import relative_position

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")


def test_paraphrases_permutations_and_inverted_relations_have_the_same_key():
    ring, cup = ObjectSpec("ring", "red"), ObjectSpec("cup")
    one = Spec((ring, cup), ((1, "left of", 0),))
    assert one.key() == Spec((cup, ring), ((0, "left of", 1),)).key()
    assert one.key() == Spec((ring, cup), ((0, "right of", 1),)).key()
    assert one.split() == Spec((cup, ring), ((1, "right of", 0),)).split()
    assert one.key() != Spec((ring, cup), ((0, "left of", 1),)).key()


def test_what_differs_in_one_demand_has_another_key():
    base = ObjectSpec("ring", "red", "small", "striped")
    others = [
        ObjectSpec("ring", "red", "small"),
        ObjectSpec("cup", "red", "small", "striped"),
        ObjectSpec("ring", "red"),
    ]
    keys = {Spec((w,)).key() for w in (base, *others)} | {Spec((base,), (), "gray").key()}
    assert len(keys) == 5


def test_splits_take_about_seven_one_and_two_tenths():
    specs = [
        Spec((ObjectSpec(a, c), ObjectSpec(b)))
        for a in ("ring", "cup", "fish")
        for b in ("house", "tree")
        for c in COLORS
    ]
    splits = [spec.split() for spec in specs]
    assert set(splits) == {"train", "validation", "test"} and splits.count("train") > len(splits) / 2


def test_every_shape_and_every_colour_has_held_out_pairs():
    assert len(HELD_OUT_PAIRS) == len({shape for shape, _ in HELD_OUT_PAIRS}) == 16
    assert {color for _, color in HELD_OUT_PAIRS} == set(COLORS)


@pytest.mark.parametrize("family", SPECS)
@pytest.mark.parametrize("split", ["train", "ood"])
def test_scenes_satisfy_their_spec_and_changed_ones_do_not(family, split):
    examples, rng = stream(family, split, 0), np.random.default_rng(0)
    for _ in range(100):
        example = next(examples)
        scene = example.scene(rng)
        changed = change_one_fact(example.spec, scene, rng)
        assert satisfies(example.spec, scene) and not satisfies(example.spec, changed)
        assert len(scene.objects) - len(changed.objects) in (0, 1)


def test_contradicting_relations_are_named():
    spec = Spec((ObjectSpec("ring"), ObjectSpec("cup")), ((0, "left of", 1), (1, "left of", 0)))
    with pytest.raises(ValueError, match=r"no scene satisfies .*contradict"):
        scene_for(spec, np.random.default_rng(0))


def test_a_relation_that_holds_in_the_lab_is_the_only_one_that_holds_by_genevals_rule():
    def box(x, y):
        return (x - 8, y - 8, x + 8, y + 8)

    for x in range(-48, 49, 8):
        for y in range(-48, 49, 8):
            if max(abs(x), abs(y)) < 24:
                continue
            held = [relation for relation in RELATIONS if relation_holds(relation, (x, y), (0, 0))]
            assert len(held) <= 1
            if held:
                assert relative_position(box(x, y), box(0, 0)) == set(held)


def test_open_attributes_are_free_and_stated_ones_are_not():
    rng = np.random.default_rng(0)
    scenes = [scene_for(Spec((ObjectSpec("ring", size="small"),)), rng) for _ in range(60)]
    assert {s.objects[0].size for s in scenes} == {"small"} and len({s.objects[0].color for s in scenes}) == 7
    assert satisfies(Spec((ObjectSpec("ring"),)), Scene((SceneObject("ring", "red", "small", "solid", 0, 0),) * 2))
    assert not satisfies(
        Spec((ObjectSpec("ring", count=3),)), Scene((SceneObject("ring", "red", "small", "solid", 0, 0),) * 4)
    )
