import math

import pytest
import torch

from thinkdraw.objectives import POLICY_LOSSES
from thinkdraw.objectives.policy_gradient import VARIANTS, clipped_loss


def one(log_ratio, advantage, variant="grpo", **options):
    """One row with one image token per log-ratio, old log-prob −2; returns the result and the gradient."""
    log_ratio = torch.tensor([log_ratio]) if isinstance(log_ratio, list) else torch.tensor([[log_ratio]])
    lp = (log_ratio - 2.0).requires_grad_()
    true = torch.ones_like(lp).bool()
    old = torch.full_like(lp, -2.0)
    result = clipped_loss(lp, old, torch.tensor([advantage]), true, true, variant=variant, **options)
    return result, torch.autograd.grad(result.loss, lp)[0].flatten().tolist()


def test_clip_stops_the_gradient_when_ratio_exceeds_1_plus_eps_for_positive_advantage():
    # ratio = e^0.5 = 1.65 > 1.2, A = +1  ->  loss = -1.2, gradient 0
    result, gradient = one(0.5, 1.0)
    assert result.loss.item() == pytest.approx(-1.2)
    assert gradient == [0.0]
    assert result.image_clip_frac.item() == 1.0


def test_clip_stops_the_gradient_when_ratio_is_under_1_minus_eps_for_negative_advantage():
    # ratio = e^-0.5 = 0.61 < 0.8, A = -1  ->  loss = 0.8, gradient 0
    result, gradient = one(-0.5, -1.0)
    assert result.loss.item() == pytest.approx(0.8)
    assert gradient == [0.0]


def test_clip_never_stops_a_correction():
    # ratio 1.65 with A = -1 must come down: loss = 1.65, gradient = ratio
    result, gradient = one(0.5, -1.0)
    assert result.loss.item() == pytest.approx(math.exp(0.5))
    assert gradient == pytest.approx([math.exp(0.5)])
    assert result.image_clip_frac.item() == 0.0


def test_the_upper_clip_can_be_raised_alone():
    # ratio = e^0.25 = 1.284: over 1.2 and 1.28, under 1.3; the lower bound stays 0.8
    assert one(0.25, 1.0, "dapo", clip_high=0.28)[1] == [0.0]
    assert one(0.25, 1.0, "dapo", clip_high=0.3)[1] == pytest.approx([-math.exp(0.25)])
    assert one(-0.5, -1.0, "dapo", clip_high=0.3)[1] == [0.0]


def test_cispo_caps_the_weight_and_keeps_the_gradient():
    # ratio e^2 = 7.39, capped at 5: loss = -5 · 1 · lp = -5 · 0, gradient -5. At ratio e^0.5 the weight is 1.65
    result, gradient = one(2.0, 1.0, "cispo")
    assert gradient == [-5.0]
    assert result.image_clip_frac.item() == 1.0
    result, gradient = one(0.5, 1.0, "cispo")
    assert result.loss.item() == pytest.approx(1.5 * math.exp(0.5))  # lp = 0.5 - 2
    assert gradient == pytest.approx([-math.exp(0.5)])


def test_gspo_clips_the_geometric_mean_ratio_of_the_segment():
    # log-ratios 0.3 and -0.3: s = e^0 = 1, inside 1 ± 3e-4, though each token ratio is far outside
    result, gradient = one([0.3, -0.3], 1.0, "gspo")
    assert result.loss.item() == pytest.approx(-1.0)
    assert gradient == pytest.approx([-0.5, -0.5])  # s · A / 2 tokens each
    # log-ratios 0.001 and 0.001: s = 1.001 > 1.0004  ->  loss -1.0004, gradient 0
    result, gradient = one([0.001, 0.001], 1.0, "gspo")
    assert result.loss.item() == pytest.approx(-1.0004, abs=1e-6)
    assert gradient == [0.0, 0.0]


def denominator_case(variant, **options):
    """Ratio 1, so every token's loss is −A. Row 0: A = 1, 1 text, 2 image; row 1: A = 3, 0 text, 4 image."""
    mask = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1]]).bool()
    is_image = torch.tensor([0, 0, 1, 1, 1, 1]).bool().expand(2, 6)
    lp = torch.full((2, 6), -1.0)
    return clipped_loss(lp, lp, torch.tensor([1.0, 3.0]), mask, is_image, variant=variant, **options).loss.item()


def test_grpo_averages_over_the_sequences_that_have_the_modality():
    # text: row 0 alone, -1.  image: (-1 - 3) / 2 = -2
    assert denominator_case("grpo") == pytest.approx(-3.0)


@pytest.mark.parametrize("variant", ["dapo", "bnpo"])
def test_dapo_averages_over_the_tokens_of_the_modality(variant):
    # text: -1 / 1.  image: (2 · -1 + 4 · -3) / 6 = -2.3333
    assert denominator_case(variant) == pytest.approx(-1 - 14 / 6)


def test_dr_grpo_divides_by_sequences_times_budget():
    # text: -1 / (2 · 2) = -0.25.  image: -14 / (2 · 4) = -1.75
    assert denominator_case("dr_grpo", text_budget=2, image_budget=4) == pytest.approx(-2.0)


def test_dr_grpo_without_the_budget_of_a_trained_modality_is_refused():
    with pytest.raises(ValueError, match="Pass text_budget"):
        denominator_case("dr_grpo", image_budget=4)


def test_advantages_per_token_weigh_each_token():
    # (2 · 1 + 3 · 0.5) / 2 tokens = 1.75
    lp, true = torch.full((1, 2), -1.0), torch.ones(1, 2).bool()
    result = clipped_loss(lp, lp, torch.tensor([[2.0, 1.5]]), true, true)
    assert result.loss.item() == pytest.approx(-1.75)


@pytest.mark.parametrize("denominator", ["token", "budget"])
def test_gspo_with_a_token_sum_denominator_is_refused(denominator):
    with pytest.raises(ValueError, match="Choose variant='dapo'"):
        one(0.0, 1.0, "gspo", denominator=denominator, text_budget=3.0, image_budget=5.0)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_mask_without_a_trained_token_is_an_error(variant):
    lp, false = torch.zeros(2, 3), torch.zeros(2, 3).bool()
    with pytest.raises(ValueError, match="at least one trained token"):
        clipped_loss(lp, lp, torch.ones(2), false, false, variant=variant)


def test_diagnostics_describe_the_token_ratios_without_gradient():
    # ratios e^0 = 1, e^0.5 = 1.6487, e^-1 = 0.3679: mean 1.0055, largest distance from 1 is 0.6487
    result, _ = one([0.0, 0.5, -1.0], 1.0)
    assert result.ratio_mean.item() == pytest.approx((1 + math.exp(0.5) + math.exp(-1)) / 3)
    assert result.ratio_min.item() == pytest.approx(math.exp(-1))
    assert result.ratio_max.item() == pytest.approx(math.exp(0.5))
    assert result.ratio_max_deviation.item() == pytest.approx(math.exp(0.5) - 1)
    assert result.image_clip_frac.item() == pytest.approx(1 / 3)
    assert result.text_clip_frac.isnan()  # nothing measured, not 0
    assert not result.ratio_mean.requires_grad and not result.image_clip_frac.requires_grad


def test_an_unknown_variant_names_the_known_ones():
    with pytest.raises(ValueError, match="grpo, dapo, bnpo, dr_grpo, gspo, cispo"):
        one(0.0, 1.0, "ppo")


def test_advantages_of_other_rows_are_refused():
    lp, true = torch.zeros(2, 3), torch.ones(2, 3).bool()
    with pytest.raises(ValueError, match="of the same rollouts"):
        clipped_loss(lp, lp, torch.ones(1), true, true)


def test_the_registry_holds_every_variant():
    assert set(POLICY_LOSSES) == set(VARIANTS)
    lp, true = torch.full((1, 2), -1.0), torch.ones(1, 2).bool()
    assert POLICY_LOSSES["dapo"](lp, lp, torch.ones(1), true, true).loss.item() == pytest.approx(-1.0)
