import re
from itertools import pairwise

import numpy as np
import pytest

from thinkdraw.data.demands import Demand, ObjectDemand, clauses, questions
from thinkdraw.data.structure.words import COLORS, GENEVAL_RELATIONS, GROUPS, NUMBERS, SHAPES, WORDINGS, article, plural
from thinkdraw.data.templates import (
    COMPBENCH_TASKS,
    GENEVAL_TASKS,
    Vocabulary,
    compbench_prompt,
    draw_nouns,
    geneval_prompt,
    join_phrases,
)
from thinkdraw.errors import UserError
from thinkdraw.rewards.rules import judge_picture
from thinkdraw.types import Detection, Prompt

ALL = Vocabulary.of(())
PLURALS = {plural(noun) for group in GROUPS.values() for noun in group}
MAKERS = [(geneval_prompt, task) for task in GENEVAL_TASKS] + [(compbench_prompt, task) for task in COMPBENCH_TASKS]


def draws(make, task: str, count: int = 300) -> list[Prompt]:
    rng = np.random.default_rng(0)
    return [make(task, rng, ALL) for _ in range(count)]


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (ObjectDemand("owl"), "an owl"),
        (ObjectDemand("owl", color="orange"), "an orange owl"),
        (ObjectDemand("owl", color="red", texture="fluffy"), "a fluffy red owl"),
        (ObjectDemand("unicycle", color="red", texture="metal"), "a red metal unicycle"),
        (ObjectDemand("clock", color="red", texture="shiny", shape="oval"), "a shiny oval red clock"),
        (ObjectDemand("mouse", 3, color="white"), "three white mice"),
        (ObjectDemand("coffee table", 2, texture="wooden"), "two wooden coffee tables"),
        (ObjectDemand("sheep", 8), "eight sheep"),
    ],
)
def test_a_thing_is_counted_in_english(thing, text):
    assert thing.counted() == text


def test_lists_have_commas_and_one_and():
    things = (ObjectDemand("dog"), ObjectDemand("cat", 2), ObjectDemand("owl"))
    assert [join_phrases(things[:n]) for n in (1, 2, 3)] == [
        "a dog",
        "a dog and two cats",
        "a dog, two cats and an owl",
    ]


def test_clauses_and_questions_of_a_demand():
    demand = Demand((ObjectDemand("dog", color="red"), ObjectDemand("mouse", 2, texture="wooden")), "left of")
    include, exclude = clauses(demand)
    assert include == (
        {"class": "dog", "count": 1, "color": "red"},
        {"class": "mouse", "count": 2, "texture": "wooden", "position": ["left of", 0]},
    )
    assert exclude == ({"class": "mouse", "count": 3},)
    assert [(q.id, q.text, q.depends_on) for q in questions(demand)] == [
        (1, "is there a dog?", ()),
        (2, "is the dog red?", (1,)),
        (3, "are there any mice?", ()),
        (4, "are there exactly two mice?", (3,)),
        (5, "are the mice made of wood?", (3,)),
        (6, "are the mice left of the dog?", (1, 3)),
    ]
    # GenEval's rules do not know "behind", which therefore has a key of its own.
    assert clauses(Demand((ObjectDemand("dog"), ObjectDemand("cat")), "behind"))[0][1]["relation"] == ["behind", 0]


@pytest.mark.parametrize(("make", "task"), MAKERS, ids=lambda x: x if isinstance(x, str) else x.__name__)
def test_every_prompt_of_a_task_is_grammatical_and_asks_for_what_it_says(make, task):
    for prompt in draws(make, task):
        text = prompt.text
        words = re.findall(r"[a-z-]+", text.lower())
        for found in re.finditer(r"\ban? ([\w-]+)", text):
            assert found[0] == article(found[1]), text
        assert all(a != b for a, b in pairwise(words)) and len(words) < 20, text
        assert "  " not in text and text == text.strip() and text.endswith(".") == text[0].isupper(), text
        assert prompt.tag == task
        for clause in prompt.include:
            noun = clause["class"] if clause["count"] == 1 else plural(clause["class"])
            assert re.search(rf"\b{re.escape(noun)}\b", text), (text, clause)
            if clause["count"] > 1:
                assert re.search(rf"\b{NUMBERS[clause['count']]}\b.*\b{noun}\b", text), text
            assert clause.get("color", "") in text and clause.get("shape", "") in text
        assert [q.id for q in prompt.questions] == list(range(1, len(prompt.questions) + 1))
        assert all(parent < q.id for q in prompt.questions for parent in q.depends_on)
        assert len({clause["class"] for clause in prompt.include}) == len(prompt.include)


def test_genevals_tasks_have_its_words_and_clauses():
    number = "two|three|four"
    shapes = {
        "single_object": r"a photo of an? [\w -]+",
        "two_object": r"a photo of an? [\w -]+ and an? [\w -]+",
        "counting": rf"a photo of ({number}) [\w -]+",
        "colors": rf"a photo of an? ({'|'.join(COLORS)}) [\w -]+",
        "position": rf"a photo of an? [\w -]+ ({'|'.join(GENEVAL_RELATIONS)}) an? [\w -]+",
        "color_attr": rf"a photo of an? ({'|'.join(COLORS)}) [\w -]+ and an? ({'|'.join(COLORS)}) [\w -]+",
    }
    for task, pattern in shapes.items():
        for prompt in draws(geneval_prompt, task, 100):
            assert re.fullmatch(pattern, prompt.text), prompt.text
            assert len(prompt.include) == (2 if task in ("two_object", "position", "color_attr") else 1)
            assert len(prompt.exclude) == (task == "counting")
    last = draws(geneval_prompt, "position", 1)[0]
    relation, target = last.include[1]["position"]
    assert target == 0 and last.text.endswith(f"{relation} {ObjectDemand(last.include[0]['class']).counted()}")


def test_genevals_rules_judge_the_clauses():
    prompt = draws(geneval_prompt, "position", 1)[0]
    a, b = (clause["class"] for clause in prompt.include)
    middle, left = (50.0, 50.0, 60.0, 60.0), (0.0, 50.0, 10.0, 60.0)
    kept = {a: [Detection(a, middle, 0.9)], b: [Detection(b, left, 0.9)]}
    relation = prompt.include[1]["position"][0]
    assert judge_picture(prompt.metadata(), kept, lambda *_: []).correct == (relation == "left of")


def test_compbenchs_categories_bind_different_attributes_to_two_things():
    for task, key in (("color", "color"), ("shape", "shape"), ("texture", "texture")):
        for prompt in draws(compbench_prompt, task, 100):
            first, second = prompt.include
            assert first[key] != second[key] and len(prompt.questions) == 4
    made = [p.text for p in draws(compbench_prompt, "texture", 200)]
    assert any(" is made of " in text for text in made)
    assert not any(re.search(r"made of (striped|fluffy)|\bis (wooden|glass)", text) for text in made)
    assert any(shape in p.text for p in draws(compbench_prompt, "shape", 50) for shape in SHAPES)


def test_compbenchs_relations_numbers_and_mixtures():
    found = set()
    for prompt in draws(compbench_prompt, "spatial", 400):
        ((relation, target),) = [c[k] for c in prompt.include for k in ("position", "relation") if k in c]
        assert target == 0 and any(f" {wording} " in prompt.text for wording in WORDINGS[relation])
        found.add(relation)
    assert found == WORDINGS.keys()
    counts = [tuple(c["count"] for c in p.include) for p in draws(compbench_prompt, "numeracy")]
    assert {len(c) for c in counts} == {1, 2, 3} and max(map(max, counts)) == 8 and all(c[0] > 1 for c in counts)
    for prompt in draws(compbench_prompt, "complex"):
        target, subject, *more = prompt.include
        assert {"color", "texture"} <= target.keys() and "color" in subject and len(more) <= 1


def test_a_noun_is_not_paired_with_one_that_shares_a_word_nor_said_of_itself():
    rng = np.random.default_rng(0)
    nouns = ("table", "coffee table", "tree", "palm tree", "tree house", "house", "cat", "dog")
    for _ in range(100):
        a, b = draw_nouns(rng, nouns, 2)
        assert not set(a.split()) & set(b.split())
    colors = {geneval_prompt("colors", rng, Vocabulary((*nouns, "orange"), (), ())).text for _ in range(300)}
    assert any("orange" in text for text in colors) and not any("orange orange" in text for text in colors)


def test_a_vocabulary_without_things_for_a_task_says_so():
    animals = Vocabulary.of(("animals",))
    assert "dog" in animals.nouns and not animals.made
    with pytest.raises(UserError, match="Choose more groups"):
        compbench_prompt("texture", np.random.default_rng(0), animals)
    with pytest.raises(ValueError, match="one of single_object"):
        geneval_prompt("colour", np.random.default_rng(0), ALL)
