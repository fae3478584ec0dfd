import pytest

from thinkdraw.data.leak_guard import (
    SAME_CLAUSES,
    SAME_TEXT,
    Leak,
    clause_key,
    find_leaks,
    normalise,
    refuse_leaks,
    text_key,
)
from thinkdraw.data.prompt_files import read_prompts
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.types import Prompt

CAT, DOG = {"class": "cat", "count": 1}, {"class": "dog", "count": 1}


def of(*clauses: dict, text: str = "x", exclude: tuple[dict, ...] = ()) -> Prompt:
    return Prompt(text, include=clauses, exclude=exclude)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("A photo of a Cat.", "photo of cat"),
        ("  the  cat\tand an\nowl ", "cat and owl"),
        ("a T-shirt, (red)!", "t shirt red"),
        ("the dog's bone", "dogs bone"),
        ("the dog’s bone", "dogs bone"),
        ("a_b", "b"),  # an underscore separates words too
        ("ﬁve ＣＡＴＳ", "five cats"),  # compatibility forms
        ("Straße", "strasse"),
        ("一只猫。", "一只猫"),
        ("the", "the"),  # nothing else is left: it stays
        ("?!", "?!"),
    ],
)
def test_normalisation(text, normal):
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a photo of a red cat", "A red cat.", True),
        ("There is a cat", "an image with a cat", True),
        ("a cat and a dog", "a photo of a dog and a cat", True),
        ("a cat left of a dog", "a dog left of a cat", False),
        ("a cat, a dog and an owl and an ant", "an ant and a cat, a dog and an owl", False),  # more than one `and`
        ("two cats", "three cats", False),
        ("a red cat and a blue dog", "a blue cat and a red dog", False),
    ],
)
def test_which_texts_are_the_same(one, other, same):
    assert (text_key(one) == text_key(other)) == same
    assert [leak.reason for leak in find_leaks([Prompt(one)], [Prompt(other)])] == [SAME_TEXT] * same


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (of(CAT, DOG), of(DOG, CAT), True),
        (of(CAT), of({"class": "Cat", "count": 1}), True),
        (of(CAT), of({"class": "cat", "count": 2}), False),
        (of(CAT), of(CAT, DOG), False),
        (of(CAT | {"color": "red"}), of(CAT | {"color": "blue"}), False),
        (of(CAT | {"texture": "furry"}), of(CAT), False),
        (of(CAT | {"color": "red"}, DOG), of(CAT, DOG | {"color": "red"}), False),
        # b left of a = a right of b
        (of(CAT, DOG | {"position": ["left of", 0]}), of(DOG, CAT | {"position": ["right of", 0]}), True),
        (of(CAT, DOG | {"position": ["left of", 0]}), of(DOG, CAT | {"position": ["left of", 0]}), False),
        (of(CAT, DOG | {"position": ["above", 0]}), of(DOG, CAT | {"position": ["below", 0]}), True),
        (of(CAT, DOG | {"position": ["above", 0]}), of(CAT, DOG), False),
        (of(CAT, DOG | {"relation": ["behind", 0]}), of(DOG, CAT | {"relation": ["in front of", 0]}), True),
        (of(CAT, DOG | {"relation": ["next to", 0]}), of(DOG, CAT | {"relation": ["next to", 0]}), True),
        (of(CAT, exclude=(DOG,)), of(CAT), False),
        (of(CAT, exclude=(DOG, CAT)), of(CAT, exclude=(CAT, DOG)), True),
        (of(), of(), False),  # no clauses say nothing
    ],
)
def test_which_clauses_are_the_same(one, other, same):
    train, test = [Prompt("this", include=one.include, exclude=one.exclude)], [other]
    assert [leak.reason for leak in find_leaks(train, test)] == [SAME_CLAUSES] * same


def test_near_copies_leak_only_between_prompts_of_twenty_words():
    # 30 different words have 28 triples; another word in the middle breaks 3 of them: 25 / 31 = 0.81, at the end 27 / 29 = 0.93
    words = [f"w{i}" for i in range(30)]
    end = " ".join([*words[:-1], "x"])
    middle = " ".join([*words[:15], "x", *words[16:]])
    two = " ".join([*words[:10], "x", *words[11:20], "y", *words[21:]])  # 22 / 34 = 0.65
    found = find_leaks([Prompt(end), Prompt(two), Prompt(middle)], [Prompt("a cat"), Prompt(" ".join(words))])
    assert [(leak.train, leak.test) for leak in found] == [(0, 1), (2, 1)]
    assert [leak.reason for leak in found] == ["0.93 of the word triples shared", "0.81 of the word triples shared"]
    # 19 words, one of them other: 16 / 18 = 0.89, but too short
    assert find_leaks([Prompt(" ".join([*words[:18], "x"]))], [Prompt(" ".join(words[:19]))]) == []
    assert find_leaks([Prompt(" ".join([*words[:19], "x"]))], [Prompt(" ".join(words[:20]))]) != []


def test_each_training_prompt_is_reported_once_with_the_first_test_prompt():
    test = [Prompt("a dog"), Prompt("a cat", include=(CAT,)), Prompt("the cat", include=(CAT,))]
    found = find_leaks([Prompt("an owl"), Prompt("Cat!"), Prompt("one cat", include=(CAT,)), Prompt("a dog")], test)
    assert found == [Leak(1, 1, SAME_TEXT), Leak(2, 1, SAME_CLAUSES), Leak(3, 0, SAME_TEXT)]
    assert find_leaks([], test) == find_leaks([Prompt("a cat")], []) == []


def test_refusing_names_the_number_the_first_three_and_the_way_out():
    train = [Prompt(f"cat {i}") for i in range(5)] + [Prompt("an owl")]
    with pytest.raises(UserError) as raised:
        refuse_leaks(train, train[:5], "data.leaks")
    message = str(raised.value)
    assert message.startswith("5 of 6 training prompts are test prompts: 'cat 0' is test prompt 0 (equal after norm")
    assert "cat 2" in message and "cat 3" not in message and "data.leaks: drop" in message and "\n" not in message
    refuse_leaks(train[5:], train[:5])


@pytest.mark.parametrize("family", ["geneval", "compbench", "dense"])
def test_the_labs_splits_do_not_leak_into_each_other(family):
    train = [e.prompt for e in prompt_set(family, "train", 400, seed=3)]
    for split in ("test", "validation"):
        assert find_leaks(train, [e.prompt for e in prompt_set(family, split, 150)]) == []
    assert len(find_leaks(train, train)) == len(train)


def test_the_published_training_prompts_hold_the_known_leaks(shared_dir):
    benchmarks = shared_dir / "benchmarks"
    if not (benchmarks / "t2i_r1_train").is_dir():
        pytest.skip(f"{benchmarks} has no training prompts to check")
    train = read_prompts(benchmarks / "t2i_r1_train" / "geneval_and_t2i_data_final.jsonl")
    # Exact overlap after lower-casing is known: 4 prompts of shape and 2 of spatial. The guard finds those at least.
    for category, known in (("shape", 4), ("spatial", 2)):
        test = read_prompts(benchmarks / "t2i_compbench" / f"{category}_val.txt")
        exact = {p.text.lower().rstrip(". ") for p in test}
        overlap = {i for i, p in enumerate(train) if p.text.lower().rstrip(". ") in exact}
        assert len(overlap) == known and overlap <= {leak.train for leak in find_leaks(train, test)}
    geneval = read_prompts(benchmarks / "geneval")
    assert [leak.train for leak in find_leaks(geneval, geneval)] == list(range(553))
    assert len({clause_key(p) for p in geneval}) == 552  # two of its prompts say one relation from both sides
    # What exact matching misses: parts around "and" in another order, and counts without "a photo of".
    assert len(find_leaks(train, geneval)) == 10
