import json

import pytest
import torch
from tests.benchmarks.helpers import PixelQuestioner, picture

from thinkdraw.benchmarks.vqa import evaluate_vqa, read_vqa, vqa_difference
from thinkdraw.errors import UserError
from thinkdraw.images import to_png


class Prefers(PixelQuestioner):
    """P(yes) is value / 100 of the picture; of a choice it is high where the question ends with the word."""

    word = "dog"

    def answer(self, pictures, questions):
        p = super().answer(pictures, questions)
        fits = torch.tensor([0.9 if q.endswith(f"Is it a {self.word}?") else 0.2 for q in questions])
        return torch.where(torch.tensor(["Is it" in q for q in questions]) & ~p.isnan(), fits, p)


def write(folder, *rows):
    for name, value, size in (("yes.png", 90, 8), ("no.png", 10, 8), ("large.png", 80, 12), ("broken.png", 255, 8)):
        (folder / name).write_bytes(to_png(picture(value, size)))
    (folder / "vqa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "vqa.jsonl"


def row(image, answer, question="Bright?", **more):
    return {"image": image, "question": question, "answer": answer, **more}


ANIMALS = ["a cat", "a dog", "a cow"]


def test_accuracy_is_over_all_questions_and_per_kind(tmp_path):
    path = write(
        tmp_path, row("yes.png", "yes"), row("no.png", "No"), row("no.png", "yes"), row("large.png", "yes"),
        row("yes.png", "a dog", "Which?", choices=ANIMALS), row("yes.png", "C", "Which?", choices=ANIMALS),
    )  # fmt: skip
    report = evaluate_vqa(Prefers(), read_vqa(path))
    assert report.accuracy.value == pytest.approx(4 / 6) and report.accuracy.pictures == 6
    assert {kind: score.value for kind, score in report.per_kind.items()} == {"yes/no": 3 / 4, "multiple choice": 1 / 2}
    assert [r["given"] for r in report.rows] == [0, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("answer", ["a dog", "B", "b", 1])
def test_a_choice_is_given_by_text_letter_or_number(tmp_path, answer):
    (item,) = read_vqa(write(tmp_path, row("yes.png", answer, choices=ANIMALS)))
    assert item.answer == 1


def test_pictures_and_answers_that_are_missing_are_counted_and_named(tmp_path):
    path = write(tmp_path, row("yes.png", "yes"), row("absent.png", "yes"), row("broken.png", "no"))
    report = evaluate_vqa(Prefers(), read_vqa(path))
    assert (report.accuracy.value, report.accuracy.pictures, report.accuracy.num_no_verdict) == (1, 1, 2)
    assert report.problems == [
        f"question 2: {tmp_path / 'absent.png'} cannot be read as a picture: there is no such file",
        "question 3: no verdict",
    ]


def test_the_same_model_differs_by_exactly_zero_and_a_blind_one_by_what_it_lost(tmp_path):
    path = write(tmp_path, row("yes.png", "yes"), row("yes.png", "a dog", "Which?", choices=ANIMALS))
    seeing = evaluate_vqa(Prefers(), read_vqa(path))
    same = vqa_difference(seeing.rows, seeing.rows)
    assert same.value == 0 and same.low < 0 < same.high
    blind = Prefers()
    blind.word = "cow"
    assert vqa_difference(seeing.rows, evaluate_vqa(blind, read_vqa(path)).rows).value == 0.5
    with pytest.raises(UserError, match="different questions"):
        vqa_difference(seeing.rows, seeing.rows[:1])


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (row("yes.png", "maybe"), "line 1: answer='maybe' is neither yes nor no"),
        (row("yes.png", "a horse", choices=ANIMALS), "none of the 3 choices"),
        (row("yes.png", "D", choices=ANIMALS), "none of the 3 choices"),
        ({"image": "yes.png", "answer": "yes"}, "has no `question`"),
    ],
)
def test_a_question_without_a_usable_answer_is_named_with_its_line(tmp_path, bad, says):
    with pytest.raises(UserError, match=says):
        read_vqa(write(tmp_path, bad))


def test_ids_must_differ_and_there_must_be_a_question(tmp_path):
    with pytest.raises(UserError, match="same id"):
        read_vqa(write(tmp_path, row("yes.png", "yes", id="a"), row("no.png", "no", id="a")))
    with pytest.raises(UserError, match="holds no question"):
        read_vqa(write(tmp_path))
