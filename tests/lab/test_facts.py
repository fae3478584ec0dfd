import numpy as np
import pytest

from thinkdraw.lab.detector import look
from thinkdraw.lab.facts import (
    QUESTION_TYPES,
    Seen,
    balanced_question,
    is_true,
    question_text,
    random_question,
    share_of_facts,
)
from thinkdraw.lab.prompts import SPECS, stream
from thinkdraw.lab.scenes import Scene, Thing, draw, random_scene

SCENE = Scene((
    Thing("ring", "red", "small", "striped", 0, 0),
    Thing("ring", "red", "large", "solid", 6, 6),
    Thing("cup", "blue", "large", "solid", 0, 6),
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
    assert is_true(fact, Seen.of_scene(SCENE)) is expected
    assert is_true(fact, Seen.of_detections(look(draw(SCENE)))) is expected


def test_the_share_of_facts_and_an_unknown_kind():
    facts = [{"kind": "background", "name": "gray"}, {"kind": "count", "thing": RING, "count": 3}]
    assert share_of_facts(facts, Seen.of_scene(SCENE)) == 0.5
    with pytest.raises(ValueError, match="fact kind 'smell'"):
        is_true({"kind": "smell"}, Seen.of_scene(SCENE))


@pytest.mark.parametrize("family", SPECS)
def test_facts_of_any_prompt_are_the_same_on_a_scene_and_on_what_is_detected_in_its_picture(family):
    examples, rng = stream(family, "train", 0), np.random.default_rng(0)
    some = [next(examples) for _ in range(100)]
    facts = [question.fact for example in some for question in example.prompt.questions]
    for example in some:
        scene = example.scene(rng)
        on_scene, on_picture = Seen.of_scene(scene), Seen.of_detections(look(draw(scene)))
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
            assert text.endswith("?") and changed != scene and len(changed.things) == len(scene.things)
            places = {(t.row, t.col) for t in scene.things}
            assert {(t.row, t.col) for t in changed.things} == places


def test_the_words_of_questions():
    assert (
        question_text({"kind": "exists", "thing": {"shape": "arrow", "color": "orange"}}) == "is there an orange arrow?"
    )
    assert question_text({"kind": "count", "thing": CUP, "count": 3}) == "are there exactly three cups?"
    assert question_text({"kind": "count", "thing": CUP, "count": 1}) == "is there exactly one cup?"
    relation = {"kind": "relation", "thing": CUP, "relation": "above", "other": RING}
    assert question_text(relation) == "is the cup above the ring?"
