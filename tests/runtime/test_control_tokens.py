from types import SimpleNamespace

from tokenizers import AddedToken

from thinkdraw.runtime.control_tokens import breaker


def tokenizer(*special, words=()):
    added = [AddedToken(text, special=True) for text in special] + [AddedToken(text, special=False) for text in words]
    return SimpleNamespace(added_tokens_decoder=dict(enumerate(added)), all_special_tokens=list(special))


def test_every_special_token_is_broken_up_and_all_else_stays():
    harmless = breaker(tokenizer("<image>", "<im", "[x]", words=["ring"]))
    assert harmless("a <image>, <<im and [x]?") == "a < image>, << im and [ x]?"  # the longest one first
    assert harmless("a ring < image > 3.") == "a ring < image > 3."


def test_what_is_broken_up_once_stays_as_it_is():
    harmless = breaker(tokenizer("<image>"))
    assert harmless(harmless("<image><image>")) == harmless("<image><image>") == "< image>< image>"


def test_a_tokenizer_without_special_tokens_changes_nothing():
    assert breaker(tokenizer())("<image> s") == "<image> s"
    assert breaker(tokenizer("s"))("s") == "s"  # one character cannot be broken up
