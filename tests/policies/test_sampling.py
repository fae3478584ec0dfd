"""Seeds, groups, and going on from a prefix."""

import pytest
import torch
from tests.policies.suite import (
    PROMPTS,
    SEEDS,
    assert_same_rollouts,
    difference,
    sampling,
    skip_unless_it_draws,
    tolerance,
)

from thinkdraw.errors import UserError
from thinkdraw.policies.sampling.thought_phase import ThoughtPhase
from thinkdraw.types import Prompt


def test_members_of_a_group_differ_and_equal_seeds_are_equal(any_shared_policy):
    rollouts = any_shared_policy.sample(PROMPTS, sampling(), group_size=4)
    codes = rollouts.image_tokens()
    assert rollouts.group_size == 4 and [p.text for p in rollouts.prompts[:4]] == [PROMPTS[0].text] * 4
    for p in range(3):
        assert len(codes[4 * p : 4 * p + 4].unique(dim=0)) == 4
    same = any_shared_policy.sample(PROMPTS, sampling(), group_size=2, seeds=[7, 7, 8, 8, 9, 9])
    assert torch.equal(same.image_tokens()[::2], same.image_tokens()[1::2])


def test_base_seed_decides_everything_and_prompts_in_front_keep_theirs(any_shared_policy):
    one = any_shared_policy.sample(PROMPTS, sampling(), group_size=2, seed=3)
    assert_same_rollouts(one, any_shared_policy.sample(PROMPTS, sampling(), group_size=2, seed=3))
    assert torch.equal(one.seeds[:2], any_shared_policy.sample(PROMPTS[:1], sampling(), group_size=2, seed=3).seeds)
    assert not torch.equal(one.seeds, any_shared_policy.sample(PROMPTS, sampling(), group_size=2, seed=4).seeds)
    assert len(one.seeds.unique()) == 6


@pytest.mark.parametrize("cut", [{}, {"top_p": 0.9}])
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_continuing_with_the_same_seed_reproduces_the_rollout_from_every_place(
    any_shared_policy, thought, guidance_scale, cut
):
    skip_unless_it_draws(any_shared_policy, thought)
    settings = sampling(thought, guidance_scale=guidance_scale, **cut)
    prompts = [PROMPTS[i // 2] for i in range(6)]
    whole = any_shared_policy.sample(prompts, settings, seeds=SEEDS)
    lengths = (whole.segment >= 0).sum(1)
    places = [
        torch.zeros_like(lengths),
        torch.full_like(lengths, 2),
        lengths - any_shared_policy.picture.num_tokens,
        lengths - 9,
        lengths - 1,
        lengths,
    ]
    places.append(torch.stack([p[i] for i, p in enumerate(places)]))  # each row somewhere else
    for kept in places:
        again = any_shared_policy.sample(prompts, settings, seeds=SEEDS, prefix=whole, prefix_lengths=kept)
        assert_same_rollouts(whole, again)
        assert difference(any_shared_policy, again) <= tolerance(settings)
        assert (again.allowed is None) == (not cut)
        assert torch.equal(whole.pictures, again.pictures)
    if cut:
        assert torch.equal(whole.allowed.counts, again.allowed.counts) and torch.equal(
            whole.allowed.indices, again.allowed.indices
        )


@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_forks_share_the_prefix_and_then_part(any_shared_policy, thought):
    skip_unless_it_draws(any_shared_policy, thought)
    settings = sampling(thought, guidance_scale=3.0, temperature=5.0, top_k=40)
    whole = any_shared_policy.sample(PROMPTS, settings)
    lengths = (whole.segment >= 0).sum(1) - 10  # mid-picture
    forks = any_shared_policy.sample(PROMPTS, settings, group_size=3, seed=5, prefix=whole, prefix_lengths=lengths)
    for i in range(9):
        kept = int(lengths[i // 3])
        for name in ("tokens", "mask", "log_probs"):
            assert torch.equal(getattr(forks, name)[i, :kept], getattr(whole, name)[i // 3, :kept])
    assert len(forks.image_tokens()[:3].unique(dim=0)) == 3
    assert difference(any_shared_policy, forks) <= tolerance(settings)


def test_thoughts_are_read_back_without_control_tokens(shared_policy):
    rollouts = shared_policy.sample(PROMPTS * 4, sampling())
    assert len(rollouts.thoughts) == 12 and any(rollouts.thoughts)
    assert not any("<" + "｜" in t or "begin_of_image" in t for t in rollouts.thoughts)


def test_empty_prompt_is_refused(any_shared_policy):
    with pytest.raises(UserError, match="empty"):
        any_shared_policy.sample([Prompt("  ")], sampling())


def test_prompt_that_does_not_fit_is_refused_with_the_numbers(any_shared_policy):
    with pytest.raises(UserError, match=r"tokens; with max_thought_tokens=10 and \d+ image tokens .* 512 positions"):
        any_shared_policy.sample([Prompt("many words " * 300)], sampling())


def test_prompt_that_spells_a_control_token_is_refused(shared_policy):
    with pytest.raises(UserError, match="begin_of_image"):
        shared_policy.sample([Prompt("a <begin_of_image> dog")], sampling())


def test_wrong_numbers_of_seeds_and_prefixes_are_refused(any_shared_policy):
    with pytest.raises(ValueError, match="seeds"):
        any_shared_policy.sample(PROMPTS, sampling(), seeds=[1])
    whole = any_shared_policy.sample(PROMPTS, sampling("off"), decode=False)
    with pytest.raises(ValueError, match="prefix"):
        any_shared_policy.sample(PROMPTS, sampling("off"), prefix=whole)
    with pytest.raises(ValueError, match="cannot be continued"):
        any_shared_policy.sample(PROMPTS, sampling(), prefix=whole, prefix_lengths=torch.tensor([1, 1, 1]))


def test_a_slot_whose_thought_is_done_takes_the_next_rollout(policy, monkeypatch):
    settings = sampling(guidance_scale=1.0, max_thought_tokens=24)
    whole = policy.sample(PROMPTS, settings, group_size=8, decode=False)
    seen, step = [], ThoughtPhase.step

    def counting(self, rows, columns):
        seen.append(rows)
        step(self, rows, columns)

    monkeypatch.setattr(ThoughtPhase, "step", counting)
    policy.max_rows = 4
    assert_same_rollouts(policy.sample(PROMPTS, settings, group_size=8, decode=False), whole)
    # The first token of a thought is read off its prompt. Four at a time, each batch would wait for its longest thought.
    tokens = (whole.mask & ~whole.is_image).sum(1) - 1
    waiting = tokens.split(4)
    assert sum(seen) == int(tokens.sum()) and len(seen) < sum(int(batch.max()) for batch in waiting)
