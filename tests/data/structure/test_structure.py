import json
from dataclasses import replace

import pytest

from thinkdraw.data.structure.by_templates import RuleParser
from thinkdraw.data.structure.by_writer import WriterParser
from thinkdraw.data.structure.structure import Structure, fill_structure, read_cache
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt, Question, Relation

DOG, NICE = Prompt("a red dog", "1", "mine", questions=(Question(1, "a dog?"),)), Prompt("something nice", "2")


class Counting:
    """Finds the last word of every text but of "something nice"; remembers what it was asked."""

    name = "counting"

    def __init__(self):
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        return [None if "nice" in text else Structure(nouns=(text.split()[-1],)) for text in texts]


def test_prompts_without_structure_get_it_and_keep_all_else():
    filled = fill_structure([DOG, NICE], RuleParser())
    assert filled.prompts == [replace(DOG, nouns=("dog",), attributed=("red dog",)), NICE]
    assert (filled.num_filled, filled.num_left) == (1, 1)


@pytest.mark.parametrize(
    "given", [{"nouns": ("cat",)}, {"counts": (("cat", 2),)}, {"relation": Relation("a", "near", "b")}]
)
def test_a_structure_that_a_prompt_brings_along_is_never_touched(given):
    parser, prompt = Counting(), replace(DOG, **given)
    assert fill_structure([prompt], parser).prompts == [prompt]
    assert parser.asked == []


def test_what_was_found_is_kept_by_parser_and_text_and_not_asked_again(tmp_path):
    cache, parser = tmp_path / "structure.jsonl", Counting()
    first = fill_structure([DOG, DOG, NICE], parser, cache)
    assert parser.asked == ["a red dog", "something nice"]  # equal texts once
    again = fill_structure([DOG, NICE], parser, cache)
    assert parser.asked[2:] == ["something nice"]  # what failed is tried again
    assert again.prompts == first.prompts[1:]
    fill_structure([DOG], RuleParser(), cache)
    assert set(read_cache(cache)) == {("counting", "a red dog"), ("rules", "a red dog")}


def test_every_field_survives_the_file(tmp_path):
    prompt = Prompt("two red dogs near a cup")
    found = fill_structure([prompt], RuleParser(), tmp_path / "c.jsonl").prompts[0]
    assert found.counts == (("dog", 2),) and found.relation == Relation("dog", "near", "cup")
    assert read_cache(tmp_path / "c.jsonl") == {("rules", prompt.text): Structure.of(found)}


def test_an_interrupted_run_keeps_the_chunks_that_were_done(tmp_path):
    class Breaks(Counting):
        def __call__(self, texts):
            if self.asked:
                raise KeyboardInterrupt
            return super().__call__(texts)

    prompts = [Prompt(f"a dog number {i}") for i in range(4)]
    with pytest.raises(KeyboardInterrupt):
        fill_structure(prompts, Breaks(), tmp_path / "c.jsonl", chunk=2)
    assert [text for _, text in read_cache(tmp_path / "c.jsonl")] == ["a dog number 0", "a dog number 1"]


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "a dog"}) + "\n")
    with pytest.raises(UserError, match=r"prompts\.jsonl line 1 does not name its parser"):
        fill_structure([DOG], RuleParser(), path)


TEXT = "Two red dogs sit near a cup."
GOOD = {
    "nouns": ["dog", "cup"],
    "attr_nouns": ["red dog"],
    "numeracy_info": [{"obj_name": "dog", "num": 2}],
    "spatial_info": {"obj1": "dog", "locality": "near", "obj2": "cup"},
}


def written(reply):
    class Writes:
        def __init__(self):
            self.requests = []

        def write(self, requests):
            self.requests += requests
            return [reply] * len(requests)

    return WriterParser(Writes(), "a-model")


@pytest.mark.parametrize("wrapped", ["{}", "Here it is:\n```json\n{}\n```"])
def test_a_model_that_writes_fills_the_structure(wrapped):
    parser = written(wrapped.replace("{}", json.dumps(GOOD)))
    expected = Structure(("dog", "cup"), ("red dog",), (("dog", 2),), Relation("dog", "near", "cup"))
    assert parser([TEXT]) == [expected]
    assert parser.name == "writer:a-model" and TEXT in parser.writer.requests[0].text


@pytest.mark.parametrize(
    "reply",
    [
        None,
        "",
        "The picture has dogs.",
        "{broken",
        "}{",
        "[1]",
        json.dumps(GOOD | {"nouns": ["dog", "cup", "cat"]}),  # no cat was said
        json.dumps(GOOD | {"attr_nouns": ["blue dog"]}),
        json.dumps(GOOD | {"nouns": []}),
        json.dumps(GOOD | {"nouns": "dog"}),
        json.dumps(GOOD | {"nouns": [3]}),
        json.dumps(GOOD | {"numeracy_info": [{"obj_name": "sits", "num": 2}]}),
        json.dumps(GOOD | {"numeracy_info": [{"obj_name": "dog", "num": "two"}]}),
        json.dumps(GOOD | {"numeracy_info": [{"obj_name": "dog", "num": 0}]}),
        json.dumps(GOOD | {"spatial_info": {"obj1": "dog", "locality": "behind", "obj2": "cup"}}),
        json.dumps(GOOD | {"spatial_info": {"obj1": "dog"}}),
        json.dumps(GOOD | {"spatial_info": ["dog", "near", "cup"]}),
    ],
)
def test_a_reply_of_another_form_or_with_words_of_its_own_is_no_structure(reply):
    assert written(reply)([TEXT]) == [None]


def test_a_place_that_is_null_is_none():
    assert written(json.dumps(GOOD | {"spatial_info": None}))([TEXT])[0].relation is None
