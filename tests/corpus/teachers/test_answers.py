import json

import pytest
from tests.corpus.teacher_stub import GOOD, MALFORMED

from thinkdraw.corpus.teachers.answers import LISTS, MAX_CHARACTERS, Answer, MalformedError, parse_answer
from thinkdraw.corpus.teachers.instructions import question, retry, schema, system


def malformed(text: str) -> MalformedError:
    with pytest.raises(MalformedError) as error:
        parse_answer(text)
    return error.value


@pytest.mark.parametrize("kind", MALFORMED)
def test_every_kind_of_malformed_answer_has_its_name_and_a_sentence_for_the_teacher(kind):
    error = malformed(MALFORMED[kind])
    assert error.kind == kind and len(str(error)) < 400


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"tags": []}, "empty", "tags"),
        ({"short_caption": "  \n "}, "empty", "short_caption"),
        ({"tags": "red, circle"}, "wrong type", "tags"),
        ({"paraphrases": [1]}, "wrong type", "paraphrases.0"),
        ({"detailed_caption": None}, "wrong type", "detailed_caption"),
        ({"short_caption": "x" * 601}, "too long", "600"),
        ({"step_by_step": "left \u202e right"}, "control characters", "step_by_step"),
        ({"step_by_step": "I cannot describe people in pictures."}, "refusal", "step_by_step"),
        ({"tags": ["<|im_start|>system"]}, "injected instructions", "tags.0"),
        ({"tags": ["<script>alert(1)</script>"]}, "injected instructions", "tags.0"),
        ({"detailed_caption": "a dog <begin_of_image>"}, "injected instructions", "detailed_caption"),
    ],
)
def test_one_bad_field_is_named(changes, kind, says):
    error = malformed(json.dumps(GOOD | changes))
    assert error.kind == kind and says in str(error)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("[1, 2]", "wrong type"), ("3", "wrong type"), ("{" * 30_000, "not JSON"), ('{"a": ' + "9" * 9000 + "}", "not JSON"),
     ("<think>hm</think>", "empty"), ('{"a": "b\x00"}', "control characters"), ("x" * (MAX_CHARACTERS + 1), "too long")],
)  # fmt: skip
def test_text_that_is_no_object_is_told_apart(text, kind):
    assert malformed(text).kind == kind


@pytest.mark.parametrize("form", ["{}", "```json\n{}\n```", "<think>I {{see}} it</think>\n{}", "Here it is: {} Bye."])
def test_an_object_is_found_in_a_fence_after_thoughts_and_between_words(form):
    answer = parse_answer(form.replace("{}", json.dumps(GOOD)))
    assert answer.short_caption == "a red circle" and answer.tags == ["red circle"]


def test_extra_keys_are_left_out_and_blanks_made_single():
    answer = parse_answer(json.dumps(GOOD | {"mood": "calm", "short_caption": " a\n red\tcircle "}))
    assert answer.short_caption == "a red circle" and "mood" not in answer.model_dump()


def test_a_word_on_a_poster_is_no_refusal_and_other_alphabets_are_fine():
    texts = {
        "short_caption": "a sign that says 'I am sorry' would be refused, 'we are sorry' is not",
        "tags": ["Straße", "日本"],
    }
    assert malformed(json.dumps(GOOD | texts)).kind == "refusal"
    assert (
        parse_answer(json.dumps(GOOD | {"short_caption": "a sign: 'we are sorry'", "tags": ["Straße", "日本"]})).tags[1]
        == "日本"
    )


def test_the_instruction_names_every_field_and_keeps_braces_of_captions():
    asked = question(True, "a {prompt} in {caption} braces")
    assert all(f'"{name}"' in asked for name in Answer.model_fields) and "a {prompt} in {caption} braces" in asked
    assert "German" in system("German") and "tags: {x}" in retry("tags: {x}")
    assert schema()["required"] == list(Answer.model_fields)
    assert {n for n, kind in schema()["properties"].items() if kind["type"] == "array"} == LISTS
