import pytest

from thinkdraw.runtime.chat.thoughts import drop_last_word, strip_thoughts


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>\nyes, so\n</think>\n\nYes.", "Yes."),
        ("yes, so</think>Yes.", "Yes."),  # the template began the thought
        ("<think>no end", ""),
        ("<think>a</think><think>b</think>Yes", "Yes"),
        ("<think>a</think>Yes<think>no end", "Yes"),
        ("<thinking>a</thinking> Yes", "Yes"),
        ("<seed:think>a</seed:think>Yes", "Yes"),
        ("[THINK]a[/THINK]Yes", "Yes"),
        ("◁think▷a◁/think▷Yes", "Yes"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>Yes", "Yes"),
        (" Yes, I think so ", "Yes, I think so"),
        ("", ""),
    ],
)
def test_what_stands_after_the_last_thought_is_the_answer(text, left):
    assert strip_thoughts(text) == left


def test_a_cut_text_loses_the_word_that_it_was_cut_in():
    assert [drop_last_word(t) for t in ("Final Score: 4", "one", "", "a b\nc")] == ["Final Score:", "", "", "a b"]
