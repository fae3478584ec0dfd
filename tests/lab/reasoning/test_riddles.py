"""Riddles: their answers worked by hand, their splits, and the exact detector's verdict on right and wrong answers."""

import itertools

import numpy as np
import pytest

from thinkdraw.lab.detector import detect_objects
from thinkdraw.lab.facts import PictureContents, is_true
from thinkdraw.lab.prompts import family_of, prompt_set
from thinkdraw.lab.rationales import write_thought
from thinkdraw.lab.reasoning.derivation import Derivation
from thinkdraw.lab.reasoning.kinds import KINDS, make_riddle
from thinkdraw.lab.reasoning.knowledge import COLOR_OF, SHAPE_OF
from thinkdraw.lab.reasoning.riddle import ObjectTerm, Riddle
from thinkdraw.lab.reasoning.sets import LONG_TASKS, TASKS, is_held_out_combination, split_of, stream
from thinkdraw.lab.reasoning.terms import (
    Words,
    color_by_exclusion,
    color_of_object,
    color_of_thing,
    count_by_rule,
    given,
    shape_by_definition,
    size_of_object,
)
from thinkdraw.lab.scenes import COLORS, Scene, draw
from thinkdraw.lab.shapes import SHAPES
from thinkdraw.lab.specs import ObjectSpec, Spec
from thinkdraw.lab.wording import Example


def take(split, count, seed=0):
    return list(itertools.islice(stream(split, seed), count))


def object_(shape: str, **terms) -> ObjectTerm:
    return ObjectTerm(given(shape, shape), **terms)


def is_right(example: Example, scene: Scene) -> bool:
    contents = PictureContents.of_detections(detect_objects(draw(scene)))
    return all(is_true(question.fact, contents) for question in example.prompt.questions)


RED = given("red", "red")
ONE = given(1, "one")
BY_HAND = [
    (
        Riddle("knowledge", (object_("ring", color=color_of_thing("grass")),)),
        "a ring in the color of grass",
        Spec((ObjectSpec("ring", "green"),)),
        "grass is green. so the ring is green.",
    ),
    (
        Riddle("reference", (object_("circle", color=RED), object_("ring", color=color_of_object(0, "circle")))),
        "a red circle and a ring in the color of the circle",
        Spec((ObjectSpec("circle", "red"), ObjectSpec("ring", "red"))),
        "the circle is red. so the ring is red.",
    ),
    (
        Riddle(
            "reference",
            (
                object_("cup", size=given("small", "small")),
                object_("fish", size=size_of_object(0, "cup", same=False), color=color_of_thing("mud")),
            ),
        ),
        "a small cup and a fish in the other size than the cup and in the color of mud",
        Spec((ObjectSpec("cup", None, "small"), ObjectSpec("fish", "brown", "large"))),
        "mud is brown. so the fish is brown. the cup is small. so the fish is large.",
    ),
    (
        Riddle(
            "count",
            (
                object_("square", count=ONE),
                object_("heart", count=count_by_rule("twice", 0, "heart", "square")),
                object_("ring", count=count_by_rule("one fewer", 1, "ring", "heart")),
            ),
        ),
        "one square, twice as many hearts as squares and one fewer of rings than of hearts",
        Spec(
            (
                ObjectSpec("square", count=1, exact=True),
                ObjectSpec("heart", count=2, exact=True),
                ObjectSpec("ring", count=1, exact=True),
            )
        ),
        "twice one is two. so the number of hearts is two. two less one is one. so the number of rings is one.",
    ),
    (
        Riddle(
            "exclusion",
            (object_("star", color=color_by_exclusion(["red", "green", "blue"], ["red", "green"], "a frog")),),
        ),
        "a star in red, green or blue but neither red nor the color of a frog",
        Spec((ObjectSpec("star", "blue"),)),
        "a frog is green. so green is out. red and green are out. so the star is blue.",
    ),
    (
        Riddle("definition", (ObjectTerm(shape_by_definition("what tea is drunk from"), color=RED),)),
        "what tea is drunk from, red",
        Spec((ObjectSpec("cup", "red"),)),
        "what tea is drunk from is called cup. so there is one cup.",
    ),
]


@pytest.mark.parametrize(("riddle", "text", "spec", "sentences"), BY_HAND, ids=lambda value: getattr(value, "kind", ""))
def test_answers_and_derivations_are_those_worked_by_hand(riddle, text, spec, sentences):
    assert riddle.text(Words()) == text and riddle.solve() == spec
    assert " ".join(riddle.derivation()) == sentences and riddle.steps == sentences.count("so ")


def drawn(kind: str, steps: int, wanted: str) -> Riddle:
    """The first riddle of a kind whose text has these words."""
    rng = np.random.default_rng(0)
    riddles = (make_riddle(kind, steps, rng) for _ in range(2000))
    return next(riddle for riddle in riddles if riddle is not None and wanted in riddle.text(Words()))


def test_an_order_follows_from_two_comparisons_whichever_way_they_are_said():
    riddle = drawn("order", 1, " left of ")
    spec = riddle.solve()
    names = [thing.shape for thing in spec.objects]
    facts = {(names[i], names[j]) for i, relation, j in spec.relations if relation == "left of"}
    said = riddle.text(Words()).split(", the ")[1].split(" and the ")
    for words in said:
        a, relation, b = words.replace(" is ", "|").replace(" of the ", "|").split("|")
        assert ((a, b) if relation == "left" else (b, a)) in facts
    assert len(facts) == 3  # the third one is inferred


@pytest.mark.parametrize(("words", "turned"), [(" left of ", "right of"), (" above ", "below")])
def test_a_mirror_turns_the_relation_round(words, turned):
    spec = drawn("mirror", 1, words).solve()
    assert [relation for _, relation, _ in spec.relations] == [turned]


def test_swapped_colours_go_to_the_other_object():
    riddle = drawn("mirror", 2, "swapped")
    said = [thing.color.text(Words()) for thing in riddle.objects if thing.color is not None]
    assert [thing.color for thing in riddle.solve().objects] == said[::-1]


def test_sequences_go_on():
    rainbow = drawn("sequence", 2, "rainbow from orange on").solve()
    assert [thing.color for thing in rainbow.objects] == ["orange", "yellow", "green"]
    turns = [thing.color for thing in drawn("sequence", 2, "take turns, red then blue").solve().objects]
    assert turns == ["red", "blue", "red"]


def test_knowledge_is_of_shapes_and_colours_that_there_are():
    assert set(COLOR_OF.values()) == set(COLORS) and sorted(SHAPE_OF.values()) == sorted(SHAPES)


def test_a_wrong_step_changes_what_follows_from_it():
    objects = (object_("circle", color=color_of_thing("grass")), object_("ring", color=color_of_object(0, "circle")))
    derivation = Derivation(0, np.random.default_rng(0))
    circle, ring = Riddle("knowledge", objects).solve(derivation).objects
    assert circle.color == ring.color != "green" and len(derivation.sentences) == 2


def test_every_kind_has_riddles_of_every_step_count_that_is_named():
    assert {task.split("-")[0] for task in TASKS} == {task.split("-")[0] for task in LONG_TASKS} == set(KINDS)
    tags = {example.prompt.tag for _, example in take("train", 200)} | {e.prompt.tag for _, e in take("ood", 300)}
    assert {*TASKS, *LONG_TASKS} <= tags


def test_splits_are_disjoint_and_training_has_more_than_ten_thousand():
    train = {riddle.key() for riddle, _ in take("train", 13_000)}
    assert len(train) > 10_000
    validation, test = ({riddle.key() for riddle, _ in take(split, 1000)} for split in ("validation", "test"))
    assert not train & validation and not train & test and not validation & test


def test_out_of_domain_has_what_training_never_has():
    train_texts = {example.prompt.text for _, example in take("train", 3000)}
    for riddle, example in take("train", 1000):
        assert riddle.steps <= 2 and not is_held_out_combination(riddle) and not example.spec.has_held_out_pair()
    parts = {"steps": 0, "words": 0, "combination": 0}
    for riddle, example in take("ood", 400):
        part = "steps" if riddle.steps > 2 else "combination" if is_held_out_combination(riddle) else "words"
        parts[part] += 1
        assert example.prompt.text not in train_texts
        assert (split_of(riddle) == "ood") == (part != "words")
    assert parts == {"steps": 200, "words": 100, "combination": 100}


def test_sets_of_riddles_are_those_of_the_family_with_thoughts_that_derive_them():
    examples = prompt_set("reasoning", "test", 40)
    assert examples[0].prompt.id == "lab-reasoning-test-0000" and family_of("lab-reasoning") == "reasoning"
    assert len({example.prompt.text for example in examples}) == 40
    rng = np.random.default_rng(0)
    thought = write_thought(examples[0], examples[0].scene(rng), rng)
    assert thought.startswith(" ".join(examples[0].derivation)) and "background" in thought


def test_the_same_seed_gives_the_same_riddles():
    first, again, other = ([example for _, example in take("test", 50, seed)] for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("split", ["train", "ood"])
def test_right_answers_pass_the_detector_and_one_wrong_step_fails(split):
    rng = np.random.default_rng(0)
    items = take(split, 200)
    right = [is_right(example, example.scene(rng)) for _, example in items]
    wrong = [is_right(example, riddle.wrong(rng)[0]) for riddle, example in items]
    assert sum(right) == len(items) and sum(wrong) == 0
