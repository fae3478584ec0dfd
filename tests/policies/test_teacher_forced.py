"""Given thoughts and pictures become rollouts that score as sampled ones would."""

import pytest
import torch
from tests.policies.suite import PROMPTS, TOLERANCE, sampling, skip_unless_it_draws, some_codes

THOUGHTS = ["a red circle", "two green triangles above one small yellow star left of a blue square", ""]
CODES = torch.arange(48).reshape(3, 16)


def score(policy, rollouts):
    with torch.no_grad():
        return policy.log_probs(rollouts).log_probs


@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_a_sampled_rollout_given_back_as_text_has_the_same_tokens_and_likelihood(any_shared_policy, thought):
    skip_unless_it_draws(any_shared_policy, thought)
    settings = sampling(thought, max_thought_tokens=80, guidance_scale=3.0)
    given = any_shared_policy.teacher_forced(PROMPTS, THOUGHTS, some_codes(any_shared_policy, 3), settings)
    assert torch.equal(given.image_tokens(), some_codes(any_shared_policy, 3))
    assert given.thoughts == (("", "", "") if thought == "off" else tuple(THOUGHTS))
    # the sampler, made to continue right at the end of it, agrees on what the contexts are
    lengths = (given.segment >= 0).sum(1)
    again = any_shared_policy.sample(PROMPTS, settings, prefix=given, prefix_lengths=lengths)
    assert torch.equal(again.tokens, given.tokens) and torch.equal(again.prompt_ids, given.prompt_ids)
    if thought == "rewrite":
        assert torch.equal(again.fresh_contexts[0].ids, given.fresh_contexts[0].ids)
    assert torch.isfinite(score(any_shared_policy, given)).all()


def test_begin_of_image_is_trained_unless_the_budget_cut_the_thought(shared_policy):
    given = shared_policy.teacher_forced(PROMPTS, THOUGHTS, CODES, sampling("inline", max_thought_tokens=8))
    text_len = (given.segment == 0).sum(1)
    opened = given.mask.gather(1, text_len[:, None] - 1)[:, 0]
    assert (given.tokens.gather(1, text_len[:, None] - 1) == shared_policy.text.boi).all()
    assert opened.tolist() == [True, False, True]
    assert text_len[1] == 9


def test_a_rewritten_thought_ends_by_end_of_sentence(shared_policy):
    given = shared_policy.teacher_forced(PROMPTS, THOUGHTS, CODES, sampling("rewrite", max_thought_tokens=8))
    text_len = (given.segment == 0).sum(1)
    ends = given.tokens.gather(1, text_len[:, None] - 1)[:, 0] == shared_policy.text.eos
    assert ends.tolist() == [True, False, True] and text_len.max() == 8
    assert not (given.tokens[~given.is_image] == shared_policy.text.boi).any()


@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_a_dropped_row_is_the_unconditional_row_of_guidance(any_shared_policy, thought):
    skip_unless_it_draws(any_shared_policy, thought)
    settings = sampling(thought, max_thought_tokens=60)
    drop = torch.tensor([True, False, True])
    dropped = any_shared_policy.teacher_forced(PROMPTS, THOUGHTS, some_codes(any_shared_policy, 3), settings, drop)
    kept = any_shared_policy.teacher_forced(PROMPTS, THOUGHTS, some_codes(any_shared_policy, 3), settings)
    # scale 0 samples from the unconditional logits alone
    blank = any_shared_policy.teacher_forced(
        PROMPTS,
        THOUGHTS,
        some_codes(any_shared_policy, 3),
        sampling(thought, max_thought_tokens=60, guidance_scale=0.0),
    )
    image = kept.is_image
    difference = score(any_shared_policy, dropped) - score(any_shared_policy, blank)
    assert difference[drop][image[drop]].abs().max() <= TOLERANCE
    assert torch.equal(score(any_shared_policy, dropped)[1], score(any_shared_policy, kept)[1])
    assert torch.equal(dropped.mask[drop], image[drop]) and torch.equal(dropped.mask[1], kept.mask[1])
