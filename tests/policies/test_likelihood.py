"""The trainer's likelihoods are the sampler's, and neither depends on the company a rollout keeps."""

import dataclasses

import pytest
import torch
from tests.policies.suite import (
    PROMPTS,
    SEEDS,
    TOLERANCE,
    assert_same_rollouts,
    difference,
    sampling,
    skip_unless_it_draws,
    tolerance,
)

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy
from thinkdraw.policies.check import fp32_limit
from thinkdraw.types import Prompt, Rollouts, Segment

CUTS = {"full": {}, "top_k": {"top_k": 50}, "top_p": {"top_p": 0.9}}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("guidance_scale", [0.0, 1.0, 3.0, 5.0])
@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_recomputed_log_probs_equal_the_samplers(any_shared_policy, thought, guidance_scale, temperature, cut):
    skip_unless_it_draws(any_shared_policy, thought)
    settings = sampling(thought, guidance_scale=guidance_scale, temperature=temperature, **CUTS[cut])
    rollouts = any_shared_policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS, decode=False)
    assert difference(any_shared_policy, rollouts) <= tolerance(settings)
    assert (rollouts.allowed is None) == (cut == "full")


def test_rollouts_that_end_by_begin_of_image_by_end_of_sentence_and_by_the_budget_all_occur(shared_policy):
    # what the test above rests on
    policy = shared_policy
    rollouts = policy.sample(PROMPTS * 8, sampling(), group_size=2, decode=False)
    text_len = (rollouts.segment == 0).sum(1)
    last, before = (rollouts.tokens.gather(1, (text_len - back).clamp(min=0)[:, None])[:, 0] for back in (1, 2))
    assert (last == policy.text.boi).all()
    forced = ~rollouts.mask.gather(1, text_len[:, None] - 1)[:, 0]
    ended = forced & (before == policy.text.eos)
    assert (~forced).any() and ended.any() and (forced & ~ended).any()
    assert (text_len[forced & ~ended] == 11).all()  # budget 10, and begin-of-image


@pytest.mark.parametrize(
    ("guidance_scale", "temperature", "times"),
    [(0.0, 1.0, 1), (1.0, 1.0, 1), (1.0, 0.7, 1), (3.0, 1.0, 1), (5.0, 1.0, 9 / 5), (5.0, 0.5, 18 / 5)],
)
def test_the_bound_of_fp32_grows_with_guidance_and_falling_temperature(guidance_scale, temperature, times):
    # (|s| + |s − 1|) / T, of which 5 is usual: 5 + 4 = 9 at guidance 5, and twice that at temperature 0.5
    settings = sampling(guidance_scale=guidance_scale, temperature=temperature)
    assert fp32_limit(settings) == pytest.approx(1e-4 * times)


def test_mask_is_false_on_forced_tokens_only(any_shared_policy):
    rollouts = any_shared_policy.sample(PROMPTS, sampling(), group_size=4)
    forced = (rollouts.segment >= 0) & ~rollouts.mask
    assert set(rollouts.tokens[forced].tolist()) <= any_shared_policy.text.controls
    assert rollouts.mask[rollouts.is_image].all()
    assert (rollouts.is_image.sum(1) == any_shared_policy.picture.num_tokens).all()


def test_suppressed_tokens_are_never_thought(shared_policy):
    rollouts = shared_policy.sample(PROMPTS * 4, sampling(temperature=5.0), group_size=8, decode=False)
    thought = rollouts.tokens[rollouts.mask & ~rollouts.is_image]
    assert not shared_policy.text.suppressed[thought].any()
    assert thought.max() < len(shared_policy.processor.tokenizer)


@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_a_rollout_does_not_depend_on_its_batch(any_policy, thought):
    skip_unless_it_draws(any_policy, thought)
    settings = sampling(thought, guidance_scale=3.0)
    whole = any_policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    alone = [any_policy.sample(PROMPTS[i // 2 : i // 2 + 1], settings, seeds=SEEDS[i : i + 1]) for i in range(6)]
    for i, rollouts in enumerate(alone):
        assert_same_rollouts(whole.select([i]), rollouts)
    backwards = any_policy.sample([PROMPTS[i // 2] for i in range(5, -1, -1)], settings, seeds=SEEDS.flip(0))
    assert_same_rollouts(whole, backwards.select(range(5, -1, -1)))


@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_a_rollout_does_not_depend_on_how_many_are_drawn_at_once(policy, thought):
    settings = sampling(thought, guidance_scale=3.0)
    whole = policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS)
    policy.max_rows = 4  # two rollouts at a time, with their guidance rows
    assert_same_rollouts(whole, policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS))


@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
@pytest.mark.parametrize("cut", CUTS)
def test_scores_do_not_depend_on_padding_order_or_micro_batch(any_shared_policy, thought, cut):
    skip_unless_it_draws(any_shared_policy, thought)
    rollouts = any_shared_policy.sample(
        PROMPTS, sampling(thought, guidance_scale=3.0, **CUTS[cut]), group_size=2, seeds=SEEDS, decode=False
    )
    with torch.no_grad():
        whole = any_shared_policy.log_probs(rollouts).log_probs
        order = [4, 0, 5, 2]
        part = any_shared_policy.log_probs(rollouts.select(order)).log_probs
    assert (whole[order, : part.shape[1]] - part).abs().max() <= TOLERANCE


def test_entropy_is_that_of_the_distribution_sampled_from(any_shared_policy):
    # Top-k 1 leaves one token: no entropy, certainty. Nearly infinite temperature: log of the number of codes, nats per image token.
    certain = any_shared_policy.sample(PROMPTS, sampling("off", top_k=1), decode=False)
    with torch.no_grad():
        scored = any_shared_policy.log_probs(certain)
    assert scored.entropy.abs().max() < 1e-6 and scored.log_probs.abs().max() < 1e-6
    even = any_shared_policy.sample(PROMPTS, sampling("off", temperature=1e6), decode=False)
    with torch.no_grad():
        entropy = any_shared_policy.log_probs(even).entropy
    torch.testing.assert_close(
        entropy[even.mask],
        torch.full_like(entropy[even.mask], any_shared_policy.picture.num_codes).log(),
        atol=1e-3,
        rtol=0,
    )


def test_conditional_guidance_in_loss_scores_images_as_if_unguided_and_text_the_same(policy):
    rollouts = policy.sample(PROMPTS, sampling(guidance_scale=5.0), decode=False)
    policy.network.guidance_in_loss = "conditional"
    unguided = dataclasses.replace(rollouts, sampling=sampling(guidance_scale=1.0))
    with torch.no_grad():
        conditional, plain = policy.log_probs(rollouts).log_probs, policy.log_probs(unguided).log_probs
    assert torch.equal(conditional, plain)
    text, image = rollouts.mask & ~rollouts.is_image, rollouts.is_image
    assert (conditional - rollouts.log_probs)[text].abs().max() <= TOLERANCE
    assert (conditional - rollouts.log_probs)[image].abs().max() > 0.1


@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_gradient_reaches_what_is_trained_and_nothing_else(policy, thought):
    rollouts = policy.sample(PROMPTS, sampling(thought, guidance_scale=3.0), decode=False)
    policy.network.train()
    policy.log_probs(rollouts).log_probs.sum().backward()
    inner = policy.model.model
    for module in (inner.language_model, inner.generation_head, inner.generation_aligner, inner.generation_embeddings):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    # `off` trains no text, but DDP must not wait for lm_head: a gradient of zero.
    assert (policy.model.lm_head.weight.grad.abs().sum() > 0) == (thought != "off")
    for module in (inner.vqmodel, inner.vision_model, inner.aligner):
        assert all(p.grad is None and not p.requires_grad for p in module.parameters())
    assert not inner.vqmodel.training and inner.language_model.training


def test_every_trained_parameter_has_a_gradient_in_every_format_and_without_any_trained_token(any_policy):
    for thought in any_policy.thought_formats:
        rollouts = any_policy.sample([Prompt("star")], sampling(thought), decode=False)
        for mask in (rollouts.mask, torch.zeros_like(rollouts.mask), rollouts.mask & rollouts.is_image):
            any_policy.network.zero_grad()
            scored = any_policy.log_probs(dataclasses.replace(rollouts, mask=mask))
            scored.log_probs.sum().backward()
            assert [n for n, p in any_policy.network.named_parameters() if p.requires_grad and p.grad is None] == []


def test_bf16_autocast_stays_within_a_bounded_drift(policy):
    policy.precision = "bf16"
    rollouts = policy.sample(PROMPTS, sampling(), group_size=4, decode=False)
    with torch.no_grad():
        drift = (policy.log_probs(rollouts).log_probs - rollouts.log_probs).abs()[rollouts.mask]
    assert rollouts.log_probs.dtype == torch.float32
    assert 0 < drift.mean() < 0.1  # weights this large amplify rounding; trained checkpoints stay far below


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_in_bf16_a_pass_without_gradient_scores_as_one_with_it(checkpoint, dtype):
    # A reference's pass has no gradient, its policy's has: at the first step their log-ratio is 0 only if both agree.
    policy = load_policy(checkpoint, dtype=dtype, precision="bf16")
    rollouts = policy.sample(PROMPTS, sampling(guidance_scale=5.0), group_size=2, seeds=SEEDS, decode=False)
    policy.make_reference()
    with policy.reference():
        reference = policy.log_probs(rollouts).log_probs
    scored = policy.log_probs(rollouts).log_probs
    assert scored.requires_grad and not reference.requires_grad
    assert torch.equal(scored.detach(), reference)


def in_four_segments(rollouts: Rollouts) -> tuple[Rollouts, torch.Tensor]:
    """`rewrite` rollouts written in turns: half the thought, half the picture, and the other halves; and where column t
    of row r came from, (B, T)."""
    order, segment = [], torch.full_like(rollouts.segment, -1)
    for r in range(len(rollouts)):
        text = (rollouts.segment[r] == 0).nonzero().flatten()
        picture = (rollouts.segment[r] == 1).nonzero().flatten()
        halves = [text[: len(text) // 2], picture[:7], text[len(text) // 2 :], picture[7:]]
        padding = (rollouts.segment[r] < 0).nonzero().flatten()
        order.append(torch.cat([*halves, padding]))
        lengths = torch.tensor([len(half) for half in halves])
        segment[r, : int(lengths.sum())] = torch.arange(4).repeat_interleave(lengths).to(torch.int8)
    place = torch.stack(order)
    segments = (Segment("text"), Segment("drawn", 0, 1), Segment("text"), Segment("drawn", 0, 1))
    columns = {name: getattr(rollouts, name).gather(1, place) for name in ("tokens", "is_image", "mask", "log_probs")}
    changes = {"segment": segment, "segments": (segments,) * len(rollouts)}
    return dataclasses.replace(rollouts, **columns, **changes), place


@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_segments_of_one_context_follow_each_other_there_whatever_was_written_between(shared_policy, guidance_scale):
    settings = sampling("rewrite", guidance_scale=guidance_scale)
    rollouts = shared_policy.sample(PROMPTS, settings, group_size=2, seeds=SEEDS, decode=False)
    turned, place = in_four_segments(rollouts)
    assert torch.equal(turned.image_tokens(), rollouts.image_tokens())
    assert difference(shared_policy, turned) <= tolerance(settings)
    with torch.no_grad():
        wanted = shared_policy.log_probs(rollouts).log_probs.gather(1, place)
        torch.testing.assert_close(shared_policy.log_probs(turned).log_probs, wanted, rtol=0, atol=1e-5)


def test_a_picture_shown_among_the_tokens_is_refused_and_never_read_as_another_thing(shared_policy):
    rollouts = shared_policy.sample(PROMPTS[:2], sampling(), seeds=SEEDS[:2], decode=False)
    shown = dataclasses.replace(
        rollouts,
        mask=rollouts.mask & ~rollouts.is_image,
        log_probs=rollouts.log_probs.masked_fill(rollouts.is_image, 0.0),
        segments=((Segment("text"), Segment("shown", 0)),) * 2,
    )
    with pytest.raises(UserError, match="shows its policy a picture among its tokens"):
        shared_policy.log_probs(shown)
