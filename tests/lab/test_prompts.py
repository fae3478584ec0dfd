import itertools

import numpy as np
import pytest

from thinkdraw.errors import UserError
from thinkdraw.lab.facts import PictureContents, is_true
from thinkdraw.lab.prompts import GENEVAL_TASKS, SPECS, prompt_set, stream
from thinkdraw.lab.specs import HELD_OUT_PAIRS, ObjectSpec, Spec
from thinkdraw.lab.wording import HELD_OUT_OPENINGS, HELD_OUT_WORDINGS, clauses, noun_phrase

NUM = 400


def take(family, split, seed=0, count=NUM):
    return list(itertools.islice(stream(family, split, seed), count))


@pytest.mark.parametrize("family", SPECS)
def test_the_keys_of_train_validation_and_test_are_disjoint(family):
    train, validation, test = ({e.spec.key() for e in take(family, s)} for s in ("train", "validation", "test"))
    assert min(len(train), len(validation), len(test)) > 100
    assert not train & validation and not train & test and not validation & test


@pytest.mark.parametrize("family", SPECS)
def test_texts_of_test_and_ood_never_occur_in_train(family):
    train = {e.prompt.text for e in take(family, "train", count=2000)}
    assert not train & {e.prompt.text for e in take(family, "ood")}
    assert not train & {e.prompt.text for e in take(family, "test")}


@pytest.mark.parametrize("family", SPECS)
def test_training_names_and_shows_no_held_out_pair_and_no_held_out_count(family):
    rng = np.random.default_rng(0)
    for example in take(family, "train"):
        assert not example.spec.has_held_out_pair() and not example.spec.has_held_out_count()
        assert not any((t.shape, t.color) in HELD_OUT_PAIRS for t in example.scene(rng).objects)


@pytest.mark.parametrize("family", SPECS)
def test_held_out_words_are_absent_from_train_and_present_in_ood(family):
    openings = [opening.split("{}")[0].strip() for opening in HELD_OUT_OPENINGS]
    phrases = [*openings, *(wording for words in HELD_OUT_WORDINGS.values() for wording in words)]
    train, ood = ([e.prompt.text for e in take(family, split)] for split in ("train", "ood"))
    assert not [text for text in train for phrase in phrases if phrase in text]
    assert all(any(phrase in text for text in ood) for phrase in openings)


def test_every_ood_prompt_has_something_held_out():
    openings = tuple(opening.split("{}")[0].strip() for opening in HELD_OUT_OPENINGS)
    for family in SPECS:
        for example in take(family, "ood", count=200):
            spec = example.spec
            assert spec.has_held_out_pair() or spec.has_held_out_count() or example.prompt.text.startswith(openings)


def test_a_prompt_set_is_fixed_numbered_and_without_repetition():
    examples = prompt_set("geneval", "test", 384)
    assert [e.prompt for e in examples] == [e.prompt for e in prompt_set("geneval", "test", 384)]
    assert len({e.spec.key() for e in examples}) == len({e.prompt.id for e in examples}) == 384
    assert examples[7].prompt.id == "lab-geneval-test-0007"
    assert {e.prompt.tag for e in examples} == set(GENEVAL_TASKS)


@pytest.mark.parametrize("family", SPECS)
def test_all_questions_of_a_prompt_are_true_of_its_scenes(family):
    rng = np.random.default_rng(0)
    for example in take(family, "train", count=100):
        seen = PictureContents.of_scene(example.scene(rng))
        for question in example.prompt.questions:
            assert question.fact is not None and is_true(question.fact, seen)
            assert all(parent < question.id for parent in question.depends_on)


def test_clauses_are_genevals():
    spec = Spec((ObjectSpec("ring", size="small", texture="striped"), ObjectSpec("cup", "red")), ((1, "left of", 0),))
    assert clauses(spec) == (
        (
            {"class": "small striped ring", "count": 1},
            {"class": "cup", "count": 1, "color": "red", "position": ["left of", 0]},
        ),
        (),
    )
    assert clauses(Spec((ObjectSpec("fish", count=3),))) == (
        ({"class": "fish", "count": 3},),
        ({"class": "fish", "count": 4},),
    )


def test_counted_phrases():
    assert noun_phrase(ObjectSpec("arrow", "orange")) == "an orange arrow"
    assert noun_phrase(ObjectSpec("cross", size="small", count=2)) == "two small crosses"
    assert noun_phrase(ObjectSpec("fish", count=4)) == "four fish"


def test_where_small_tasks_run_out_the_others_fill_up_and_what_there_is_not_is_said(monkeypatch):
    monkeypatch.setattr("thinkdraw.lab.prompts.MAX_STALE", 300)
    monkeypatch.setitem(SPECS, "compbench", (SPECS["compbench"][0], ("color", "shape")))
    # 1.6 · 250 / 2 = 200 at most of each task, and shape has some forty in this split: color goes on.
    made = prompt_set("compbench", "validation", 250)
    assert len({e.spec.key() for e in made}) == 250 and sum(e.prompt.tag == "color" for e in made) > 201
    monkeypatch.setitem(SPECS, "geneval", (SPECS["geneval"][0], ("single_object",)))
    with pytest.raises(UserError, match=r"count=5000: there are \d+ different geneval prompts of split 'validation'"):
        prompt_set("geneval", "validation", 5000)
