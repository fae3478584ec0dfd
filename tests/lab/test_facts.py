import numpy as np
import pytest

from thinkdraw.lab.detector import detect_objects
from thinkdraw.lab.facts import (
    QUESTION_TYPES,
    PictureContents,
    balanced_question,
    frac_of_true_facts,
    is_true,
    question_text,
    random_question,
)
from thinkdraw.lab.prompts import SPECS, stream
from thinkdraw.lab.scenes import Scene, SceneObject, draw, random_scene

SCENE = Scene((
    SceneObject("ring", "red", "small", "striped", 0, 0),
    SceneObject("ring", "red", "large", "solid", 6, 6),
    SceneObject("cup", "blue", "large", "solid", 0, 6),
), "gray")  # fmt: skip
RING, CUP = {"shape": "ring"}, {"shape": "cup"}


@pytest.mark.parametrize(
    ("fact", "expected"),
    [
        ({"kind": "exists", "thing": RING | {"size": "small", "texture": "striped"}}, True),
        ({"kind": "exists", "thing": RING | {"size": "large", "texture": "striped"}}, False),  # of two different rings
        ({"kind": "count", "thing": RING, "count": 2}, True),
        ({"kind": "count", "thing": RING, "count": 1}, False),
        ({"kind": "count", "thing": {"color": "red"}, "count": 2}, True),
        ({"kind": "relation", "thing": RING, "relation": "left of", "other": CUP}, True),
        ({"kind": "relation", "thing": CUP, "relation": "above", "other": RING}, True),  # of the other ring
        ({"kind": "relation", "thing": CUP, "relation": "left of", "other": RING}, False),
        ({"kind": "background", "name": "gray"}, True),
        ({"kind": "background", "name": "white"}, False),
    ],
)
def test_facts(fact, expected):
    assert is_true(fact, PictureContents.of_scene(SCENE)) is expected
    assert is_true(fact, PictureContents.of_detections(detect_objects(draw(SCENE)))) is expected


def test_the_share_of_facts_and_an_unknown_kind():
    facts = [{"kind": "background", "name": "gray"}, {"kind": "count", "thing": RING, "count": 3}]
    assert frac_of_true_facts(facts, PictureContents.of_scene(SCENE)) == 0.5
    with pytest.raises(ValueError, match="fact kind 'smell'"):
        is_true({"kind": "smell"}, PictureContents.of_scene(SCENE))


@pytest.mark.parametrize("family", SPECS)
def test_facts_of_any_prompt_are_the_same_on_a_scene_and_on_what_is_detected_in_its_picture(family):
    examples, rng = stream(family, "train", 0), np.random.default_rng(0)
    some = [next(examples) for _ in range(100)]
    facts = [question.fact for example in some for question in example.prompt.questions]
    for example in some:
        scene = example.scene(rng)
        on_scene, on_picture = (
            PictureContents.of_scene(scene),
            PictureContents.of_detections(detect_objects(draw(scene))),
        )
        chosen = [facts[i] for i in rng.integers(len(facts), size=30)]
        assert [is_true(fact, on_scene) for fact in chosen] == [is_true(fact, on_picture) for fact in chosen]


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_both_answers_of_every_question_type_can_be_asked_for(kind):
    rng = np.random.default_rng(0)
    scenes = [random_scene(3, rng) for _ in range(60)]
    for answer in (True, False):
        asked = [random_question(scene, kind, answer, rng) for scene in scenes]
        assert sum(question is not None for question in asked) > 0.8 * len(scenes)


@pytest.mark.parametrize("kind", QUESTION_TYPES)
def test_a_balanced_question_is_true_of_the_scene_and_false_of_the_changed_one(kind):
    rng = np.random.default_rng(0)
    found = [(s, balanced_question(s, kind, rng)) for s in (random_scene(3, rng) for _ in range(60))]
    assert sum(pair is not None for _, pair in found) > 0.6 * len(found)
    for scene, pair in found:
        if pair is not None:
            text, changed = pair
            assert text.endswith("?") and changed != scene and len(changed.objects) == len(scene.objects)
            places = {(t.row, t.col) for t in scene.objects}
            assert {(t.row, t.col) for t in changed.objects} == places


def test_the_words_of_questions():
    assert (
        question_text({"kind": "exists", "thing": {"shape": "arrow", "color": "orange"}}) == "is there an orange arrow?"
    )
    assert question_text({"kind": "count", "thing": CUP, "count": 3}) == "are there exactly three cups?"
    assert question_text({"kind": "count", "thing": CUP, "count": 1}) == "is there exactly one cup?"
    relation = {"kind": "relation", "thing": CUP, "relation": "above", "other": RING}
    assert question_text(relation) == "is the cup above the ring?"
