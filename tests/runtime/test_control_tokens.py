from types import SimpleNamespace

from tokenizers import AddedToken

from thinkdraw.runtime.control_tokens import token_escaper


def tokenizer(*special, words=()):
    added = [AddedToken(text, special=True) for text in special] + [AddedToken(text, special=False) for text in words]
    return SimpleNamespace(added_tokens_decoder=dict(enumerate(added)), all_special_tokens=list(special))


def test_every_special_token_is_broken_up_and_all_else_stays():
    escape = token_escaper(tokenizer("<image>", "<im", "[x]", words=["ring"]))
    assert escape("a <image>, <<im and [x]?") == "a < image>, << im and [ x]?"  # the longest one first
    assert escape("a ring < image > 3.") == "a ring < image > 3."


def test_what_is_broken_up_once_stays_as_it_is():
    escape = token_escaper(tokenizer("<image>"))
    assert escape(escape("<image><image>")) == escape("<image><image>") == "< image>< image>"


def test_a_tokenizer_without_special_tokens_changes_nothing():
    assert token_escaper(tokenizer())("<image> s") == "<image> s"
    assert token_escaper(tokenizer("s"))("s") == "s"  # one character cannot be broken up
