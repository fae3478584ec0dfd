"""A prompt that a policy has no room for is named, cut or left out, and the others stay as they are."""

import logging

import pytest

from thinkdraw.data.over_long import fit_prompts
from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.types import Prompt, Sampling

SHORT = Sampling(max_thought_tokens=6)


@pytest.fixture(scope="module")
def prompts():
    texts = ["a red circle", "a very " * 600 + "long prompt", "a blue square", "x" * 9000]
    return [Prompt(text, f"p-{n:05d}", nouns=("circle",)) for n, text in enumerate(texts)]


@pytest.fixture(scope="module")
def model(policy):
    return load_policy(policy)


def test_refused_with_file_place_and_id(model, prompts):
    with pytest.raises(
        UserError, match=r"p\.txt, prompt 2 of 4 \(p-00001\): .* tokens.*prompts\.over_long=cut or drop"
    ):
        fit_prompts(model, prompts, SHORT, "refuse", "p.txt", "prompts.over_long")
    with pytest.raises(UserError, match=r"metadata, prompt 2 of 4 (?!.*cut or drop)"):
        fit_prompts(model, prompts, SHORT, "refuse", "metadata", "")


def test_dropped_and_counted(model, prompts, caplog):
    with caplog.at_level(logging.WARNING):
        kept = fit_prompts(model, prompts, SHORT, "drop", "p.txt", "prompts.over_long")
    assert kept == {0: prompts[0], 2: prompts[2]}
    assert "2 of 4 prompts of p.txt are too long (prompts.over_long): 0 cut at a word, 2 left out" in caplog.text


def test_cut_at_the_last_word_that_fits_and_a_word_that_never_fits_is_left_out(model, prompts, caplog):
    with caplog.at_level(logging.WARNING):
        kept = fit_prompts(model, prompts, SHORT, "cut", "p.txt", "prompts.over_long")
    assert kept.keys() == {0, 1, 2} and "1 cut at a word, 1 left out" in caplog.text
    words = prompts[1].text.split()
    cut = kept[1].text.split()
    assert cut == words[: len(cut)] and 10 < len(cut) < len(words) and kept[1].nouns == ("circle",)
    longer = Prompt(" ".join(words[: len(cut) + 1]))
    with pytest.raises(UserError, match="tokens"):
        fit_prompts(model, [longer], SHORT, "refuse", "p.txt", "")


def test_a_control_token_is_refused_whatever_becomes_of_long_ones_and_named(model):
    spelt = model.text.tokenizer.convert_ids_to_tokens(model.text.boi)
    for how in ("cut", "drop"):
        with pytest.raises(UserError, match=r"p\.txt, prompt 2 of 2 \(without id\): .*control token"):
            fit_prompts(model, [Prompt("a cat"), Prompt(f"a {spelt} cat")], SHORT, how, "p.txt", "prompts.over_long")


def test_none_left_is_no_success(model, prompts):
    with pytest.raises(UserError, match=r"no prompt of p\.txt fits"):
        fit_prompts(model, prompts[1:2], SHORT, "drop", "p.txt", "prompts.over_long")
