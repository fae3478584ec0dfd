import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.corpus.teacher_stub import GOOD

from thinkdraw.corpus.filters.filtering import claims_of, filter_contradictions, filter_scores, filter_texts
from thinkdraw.corpus.queue import Queue
from thinkdraw.corpus.settings import AestheticSettings, ContradictionSettings, FilterSettings
from thinkdraw.corpus.sources import Item
from thinkdraw.types import Prompt

PICTURE = np.zeros((8, 8, 3), dtype=np.uint8)


def row(index: int, rationale: str, **answer):
    item = Item(index, f"i{index}", Prompt(answer.pop("caption", ""), f"i{index}"), True)
    return item, GOOD | {"detailed_caption": rationale} | answer


def test_each_row_goes_for_its_first_reason_and_is_counted_once(tmp_path):
    (tmp_path / "test.txt").write_text("a purple cow on the moon\n")
    long = "the picture shows a small red circle at the top left and a blue star below it"
    rows = [
        row(0, long),
        row(1, "too short"),
        row(2, "Das Bild zeigt einen roten Kreis und einen blauen Stern, der in der Mitte ist"),
        row(3, "Certainly! " + long),
        row(4, long.upper()),
        row(5, long + " with a green tree that is behind the house", paraphrases=["a purple cow on the Moon!"]),
    ]
    exclusions = filter_texts(rows, FilterSettings(min_words=8, against=[tmp_path / "test.txt"]))
    assert {index: name for index, (name, _) in exclusions.reasons.items()} == {
        1: "length", 2: "language", 3: "boilerplate", 4: "near duplicate", 5: "test prompt",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("field", "words"), [("object_prompts", ["a cow", "a purple dog."]), ("tags", ["cow", "purple dog"])]
)
def test_a_prompt_that_a_style_puts_together_is_kept_out_as_well(tmp_path, field, words):
    # neither "a cow" nor "a purple dog" is a test prompt, but SFT may draw "a cow and a purple dog", or "cow, purple dog"
    (tmp_path / "test.txt").write_text(
        "a photo of a cow and a purple dog\na picture of a purple dog\ncow, purple dog\n"
    )
    (tmp_path / "other.txt").write_text("a photo of a cow and a dog\n")
    rows = [row(0, "the picture shows a cow on the left of a dog in a field", **{field: words})]
    for name, reasons in (("test.txt", ["test prompt"]), ("other.txt", [])):
        exclusions = filter_texts(rows, FilterSettings(against=[tmp_path / name]))
        assert [reason for reason, _ in exclusions.reasons.values()] == reasons


def test_a_language_that_cannot_be_told_is_no_setting():
    with pytest.raises(ValidationError, match="'Dutch'"):
        FilterSettings.model_validate({"language": "Danish"})


def test_the_order_of_other_rows_changes_nothing_for_a_row():
    texts = [f"the picture shows object number {n} of a long and varied list of things {n * n}" for n in range(6)]
    rows = [row(n, text) for n, text in enumerate(texts)]
    assert filter_texts(rows, FilterSettings()).reasons == filter_texts(rows[::-1], FilterSettings()).reasons == {}


def test_claims_are_sentences_or_objects():
    answer = GOOD | {"detailed_caption": "One. Two! Three? Four", "object_prompts": ["a cat", "a dog"]}
    assert claims_of(answer, ContradictionSettings(max_claims=3)) == ["One.", "Two!", "Three?"]
    assert claims_of(answer, ContradictionSettings(claims="objects")) == ["a cat", "a dog"]


class Denies:
    """P(yes) 0.1 for what names a dragon, NaN for a ghost, 0.9 otherwise; counts what it is asked."""

    def __init__(self):
        self.asked = []

    def answer(self, pictures, questions):
        assert pictures.shape == (len(questions), 8, 8, 3)
        self.asked += questions
        return torch.tensor([0.1 if "dragon" in q else torch.nan if "ghost" in q else 0.9 for q in questions])


def test_a_questioner_is_asked_once_about_each_claim_and_what_it_denies_goes(tmp_path):
    rows = [row(0, "A cat."), row(1, "A dragon. A cat."), row(2, "A ghost."), row(3, "gone before")]
    settings, judge = ContradictionSettings(question='is it so: "{claim}"'), Denies()
    with Queue(tmp_path / "q.sqlite") as queue:
        for _ in range(2):
            exclusions = filter_texts(rows[:0], FilterSettings())
            exclusions.add(3, "length", "short")
            filter_contradictions(queue, iter(rows), lambda item: PICTURE, settings, judge, exclusions)
            assert {i: name for i, (name, _) in exclusions.reasons.items()} == {1: "contradiction", 3: "length"}
            assert exclusions.no_verdict == {"contradiction": 1}
        assert judge.asked == [
            'is it so: "A cat."',
            'is it so: "A dragon."',
            'is it so: "A cat."',
            'is it so: "A ghost."',
        ]
        looser = settings.model_copy(update={"max_frac": 0.6})
        exclusions = filter_texts(rows[:0], FilterSettings())
        filter_contradictions(queue, iter(rows[:3]), lambda item: PICTURE, looser, judge, exclusions)
        assert exclusions.reasons == {} and len(judge.asked) == 4  # another threshold asks nothing again


class Rates:
    def score(self, pictures, texts):
        return torch.tensor([{"good": 6.0, "bad": 3.0}.get(texts[0], torch.nan)])


def test_a_low_aesthetic_score_goes_and_none_stays(tmp_path):
    rows = [row(n, "x", short_caption=text) for n, text in enumerate(("good", "bad", "silent"))]
    exclusions = filter_texts(rows[:0], FilterSettings())
    with Queue(tmp_path / "q.sqlite") as queue:
        settings = AestheticSettings(scorer="x", min_score=5.0)
        filter_scores(queue, iter(rows), lambda item: PICTURE, settings, Rates(), exclusions)
    assert exclusions.reasons == {1: ("aesthetic", "below 5")} and exclusions.no_verdict == {"aesthetic": 1}


def test_a_judge_with_other_weights_is_asked_anew(tmp_path):
    rows, judge = [row(0, "x", short_caption="bad")], Rates()
    settings = AestheticSettings(scorer="x", min_score=5.0)
    with Queue(tmp_path / "q.sqlite") as queue:
        for revision, score, reasons in (("a", 3.0, {0: ("aesthetic", "below 5")}), ("b", 6.0, {})):
            judge.revision, judge.score = revision, lambda pictures, texts, score=score: torch.tensor([score])
            for _ in range(2):
                exclusions = filter_texts(rows[:0], FilterSettings())
                filter_scores(queue, iter(rows), lambda item: PICTURE, settings, judge, exclusions)
                assert exclusions.reasons == reasons
