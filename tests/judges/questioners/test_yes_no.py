"""Which answers are yes, which are no, and when two probabilities are no verdict."""

import math
import re
from types import SimpleNamespace

import pytest
import torch

from thinkdraw.errors import UserError
from thinkdraw.judges.questioners.yes_no import (
    check_pairs,
    check_question_format,
    p_yes,
    parse_yes_no,
    read_token,
    yes_no_ids,
)
from thinkdraw.judges.questioners.yes_no import single_token as one_token

YES = [
    "yes",
    "Yes",
    "YES",
    "yes.",
    "yes\u3002",
    "<answer>yes</answer>",
    "yes<|im_end|>",
    "yes\u2014it is",
    "<think>\nno, or\n</think>\n\nyes",
    " Yes, it is.",
    "\n\nyes",
    "**Yes**",
    '"Yes"',
    "`yes`",
    "(yes)",
    "Yes!",
    "yes: two",
    "“Yes”",
]
NO = ["no", "No", "NO.", "No, there are two.", "no; yes", "__no__", "'no'", "[no]", "no no no", "No?"]
NEITHER = [
    "", " ", "yesterday", "nobody", "not", "no-one", "none", "y", "n", "true", "1", "Yes/no", "yes|no", "yes_sir",
    "The answer is yes", "I think no", "maybe", "yes or no", "No or yes?", "- yes", "\\boxed{yes}", "<think>yes", "да", "yes1",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "verdict"), [*((t, 1.0) for t in YES), *((t, 0.0) for t in NO), *((t, math.nan) for t in [*NEITHER, None])]
)
def test_an_answer_is_yes_or_no_by_its_first_word_and_otherwise_no_verdict(text, verdict):
    assert parse_yes_no(text) == pytest.approx(verdict, nan_ok=True)


@pytest.mark.parametrize(
    ("token", "word"),
    [("yes", "yes"), (" Yes", "yes"), ("ĠYES", "yes"), ("▁no", "no"), ("No\n", "no")]
    + [(token, None) for token in ("##no", "yes.", "n", "not", "noĠ.", "", "Ġ")],
)
def test_a_token_spells_a_word_with_or_without_a_space_before_it(token, word):
    assert read_token(token) == word


def test_all_spellings_in_a_vocabulary_are_found_and_a_vocabulary_without_one_is_refused():
    vocabulary = {"no": 0, "ĠNo": 3, "Ġyes": 7, "Yes": 5, "yesterday": 1, "not": 2}
    yes, no = yes_no_ids(SimpleNamespace(get_vocab=lambda: vocabulary), "j")
    assert yes.tolist() == [5, 7] and no.tolist() == [0, 3]
    with pytest.raises(UserError, match=r"^judge j: its tokenizer has no token for 'no', .*$"):
        yes_no_ids(SimpleNamespace(get_vocab=lambda: {"yes": 0, "not": 1}), "j")


def test_a_word_in_pieces_or_unknown_is_no_single_token():
    ids = {"yes": [4], "no": [1, 2], "nay": [0]}
    tokenizer = SimpleNamespace(unk_token_id=0)
    made = type("T", (), {"__call__": lambda self, w, **_: SimpleNamespace(input_ids=ids[w]), **vars(tokenizer)})()
    assert one_token(made, "yes", "j") == 4
    for word in ("no", "nay"):
        with pytest.raises(UserError, match=f"no token for '{word}'"):
            one_token(made, word, "j")


def test_p_yes_is_the_share_of_yes_and_nan_below_the_least_mass():
    # 0.3 / (0.3 + 0.1) = 0.75;  0.0004 + 0.0005 < 0.001: no verdict;  at the limit there is one
    p = p_yes(torch.tensor([0.3, 0.0004, 0.0, 0.25]), torch.tensor([0.1, 0.0005, 0.0, 0.75]), 1e-3)
    assert p.dtype == torch.float32 and p[[0, 3]].tolist() == [0.75, 0.25] and p[[1, 2]].isnan().all()
    assert p_yes(torch.tensor(0.25), torch.tensor(0.25), 0.5).item() == 0.5
    assert p_yes(torch.tensor(math.nan), torch.tensor(0.5), 1e-3).isnan()
    assert p_yes(torch.tensor(0.0), torch.tensor(0.0), 0.0).isnan()


def test_pairs_in_another_form_and_empty_questions_are_refused():
    good = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    check_pairs(good, ["a", "b"])
    for pictures in (good.float(), good[0], good[..., :1]):
        with pytest.raises(ValueError, match=re.escape("expected uint8 (B, H, W, 3)")):
            check_pairs(pictures, ["a", "b"])
    with pytest.raises(ValueError, match="2 pictures and 1 questions"):
        check_pairs(good, ["a"])
    with pytest.raises(UserError, match="question 2 of 2 is empty"):
        check_pairs(good, ["a", " "])


def test_a_question_format_without_a_place_for_the_question_is_refused():
    check_question_format("{question}")
    with pytest.raises(UserError, match="it must hold"):
        check_question_format("Is it there?")
