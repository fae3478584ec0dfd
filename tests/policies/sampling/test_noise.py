"""The noise is uniform, independent along every axis, and belongs to the rollout alone."""

import math

import torch
from scipy import stats

from thinkdraw.policies.sampling import noise

SEEDS = torch.arange(200)


def keys(seeds, segment, index):
    return noise.token_keys(noise.segment_streams(seeds, segment), index)


def uniforms(seeds, segment, index, vocabulary):
    return torch.exp(-noise.exponential(keys(seeds, segment, index), vocabulary).double())


def draw(log_probs, keys):
    return noise.gumbel_max(log_probs, noise.neg_gumbel(keys, log_probs.shape[1]))


def test_noise_is_exponential_with_rate_one():
    values = noise.exponential(keys(SEEDS, 1, torch.zeros_like(SEEDS)), 5000).flatten()
    assert torch.isfinite(values).all() and values.min() > 0
    # a million draws: standard error of the mean 1e-3
    assert abs(values.mean() - 1) < 0.004 and abs(values.var() - 1) < 0.02
    assert stats.kstest(values[::10].numpy(), "expon").pvalue > 1e-3


def test_no_value_is_infinite_at_either_end_of_the_hash():
    # bits 0 and 2^31 − 1 give 0.5 / 2^31 and, without the clamp, exactly 1 in float32
    ends = torch.tensor([0, 0x7FFFFFFF], dtype=torch.int32).float().add(0.5).mul(2.0**-31)
    assert ends[1] == 1.0
    clamped = ends.clamp(max=1 - 2.0**-24)
    assert torch.isfinite(-torch.log1p(-clamped)).all() and (-torch.log1p(-clamped) > 0).all()


def test_noise_is_independent_along_seeds_places_segments_and_vocabulary():
    zero = torch.zeros_like(SEEDS)
    base = uniforms(SEEDS, 0, zero, 2000)
    others = {
        "next seed": uniforms(SEEDS + 1, 0, zero, 2000),
        "high half of the seed": uniforms(SEEDS + (1 << 32), 0, zero, 2000),
        "next place": uniforms(SEEDS, 0, zero + 1, 2000),
        "next segment": uniforms(SEEDS, 1, zero, 2000),
        "next entry": base.roll(1, dims=1),
        "next row": base.roll(1, dims=0),
    }
    for name, other in others.items():
        correlation = torch.corrcoef(torch.stack([base.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 4.5 / math.sqrt(base.numel()), name
        assert (base == other).double().mean() < 1e-4, name


def test_noise_of_a_rollout_does_not_depend_on_its_neighbours_or_on_the_vocabulary_behind():
    index = torch.arange(200)
    whole = noise.exponential(keys(SEEDS, 1, index), 300)
    assert torch.equal(whole[50:60], noise.exponential(keys(SEEDS[50:60], 1, index[50:60]), 300))
    assert torch.equal(whole[:, :100], noise.exponential(keys(SEEDS, 1, index), 100))


def test_sampled_frequencies_are_the_probabilities():
    probs = torch.tensor([0.5, 0.25, 0.125, 0.1, 0.02, 0.005, 0.0])
    count = 40_000
    tokens = draw(probs.log().expand(count, -1), keys(torch.arange(count), 1, torch.full((count,), 3)))
    observed = torch.bincount(tokens, minlength=7)
    assert observed[6] == 0
    # and over the places of one rollout
    along = draw(probs.log().expand(count, -1), keys(torch.full((count,), 5), 1, torch.arange(count)))
    for counts in (observed[:6], torch.bincount(along, minlength=7)[:6]):
        assert (
            stats.chisquare(counts.numpy(), (probs[:6].double() / probs[:6].double().sum() * count).numpy()).pvalue
            > 1e-3
        )


def test_rare_tokens_among_many_keep_their_share():
    # 16,000 tokens of 1/16,000 each: the smallest races decide, where a coarse uniform would tie.
    log_probs = torch.full((800, 16_000), -math.log(16_000))
    tokens = draw(log_probs, keys(torch.arange(800), 0, torch.zeros(800, dtype=torch.long)))
    eighths = torch.bincount(tokens * 8 // 16_000, minlength=8)
    assert stats.chisquare(eighths.numpy()).pvalue > 1e-3


def test_derived_seeds_are_distinct_and_depend_on_the_base_seed():
    seeds = torch.cat([noise.derive_seeds(seed, 50, 8) for seed in range(4)])
    assert len(seeds.unique()) == 4 * 400 and (seeds >= 0).all()
    assert torch.equal(noise.derive_seeds(1, 3, 8), noise.derive_seeds(1, 50, 8)[:24])
