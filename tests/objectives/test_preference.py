import math

import pytest
import torch

from thinkdraw.objectives import PREFERENCE_LOSSES
from thinkdraw.objectives.preference import dpo_loss, rebel_loss

# One pair. Chosen: 1 text, 2 image tokens; rejected: 2 text, 1 image token and padding.
CHOSEN, REF_CHOSEN = torch.tensor([[-1.0, -2.0, -4.0]]), torch.tensor([[-1.3, -2.1, -4.2]])
REJECTED, REF_REJECTED = torch.tensor([[-1.2, -1.4, -0.5, 0.0]]), torch.tensor([[-1.0, -1.0, -1.0, 9.0]])
MASKS = torch.tensor([[True, True, True]]), torch.tensor([[True, True, True, False]])
IMAGES = torch.tensor([[False, True, True]]), torch.tensor([[False, False, True, False]])
PAIR = (CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, *MASKS, *IMAGES)
# log-ratios: chosen 0.3 | 0.1 0.2, rejected -0.2 -0.4 | 0.5.  Sums 0.6 and -0.1, so that delta = 0.7.
# Means: chosen text 0.3, image 0.15, together 0.225; rejected text -0.3, image 0.5, together 0.1: delta = 0.125.


def dpo(loss_type="sigmoid", **options):
    return dpo_loss(*PAIR, loss_type=loss_type, **options)


def rebel(reward_1=1.0, reward_2=0.5, **options):
    return rebel_loss(*PAIR, torch.tensor([reward_1]), torch.tensor([reward_2]), **options)


@pytest.mark.parametrize(
    ("loss_type", "beta", "expected"),
    [
        ("sigmoid", 0.1, math.log(1 + math.exp(-0.07))),  # -log sigma(0.1 * 0.7)
        ("hinge", 0.1, 0.93),  # 1 - 0.1 * 0.7
        ("hinge", 2.0, 0.0),  # 1 - 1.4 < 0
        ("ipo", 0.1, (0.125 - 5.0) ** 2),  # aims at 1 / (2 * 0.1) = 5 nats per token
        ("sigmoid_norm", 2.0, math.log(1 + math.exp(-0.25))),  # -log sigma(2 * 0.125)
    ],
)
def test_each_loss_type_is_its_formula_of_the_log_ratio_gap(loss_type, beta, expected):
    assert dpo(loss_type, beta=beta).loss.item() == pytest.approx(expected, rel=1e-5)


def test_modality_weights_scale_the_sums_and_average_the_means():
    # sums: 2 * 0.3 + 0.5 * 0.3 = 0.75 and 2 * -0.6 + 0.5 * 0.5 = -0.95: delta 1.7, hinge 1 - 0.17
    assert dpo("hinge", text_weight=2.0, image_weight=0.5).loss.item() == pytest.approx(0.83)
    # means: (2 * 0.3 + 0.5 * 0.15) / 2.5 = 0.27 and (2 * -0.3 + 0.5 * 0.5) / 2.5 = -0.14: delta 0.41
    loss = dpo("ipo", beta=1.0, text_weight=2.0, image_weight=0.5).loss
    assert loss.item() == pytest.approx((0.41 - 0.5) ** 2, rel=1e-4)


def test_the_mean_of_a_picture_without_thought_is_the_mean_of_its_image_tokens():
    # image tokens alone: 0.15 and 0.5, not halved for want of text: delta -0.35
    masks = [m & i for m, i in zip(MASKS, IMAGES)]
    loss = dpo_loss(CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, *masks, *IMAGES, loss_type="ipo", beta=1.0).loss
    assert loss.item() == pytest.approx((-0.35 - 0.5) ** 2, rel=1e-5)


def test_label_smoothing_is_the_share_of_pairs_taken_the_other_way():
    # 0.8 * log(1 + e^-0.07) + 0.2 * log(1 + e^0.07)
    expected = 0.8 * math.log(1 + math.exp(-0.07)) + 0.2 * math.log(1 + math.exp(0.07))
    assert dpo(label_smoothing=0.2).loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_sft_term_is_the_nll_per_token_of_the_chosen_with_each_modality_averaged():
    # text 1, image (2 + 4) / 2 = 3, together 2; hinge 0.93 + 0.5 * 2
    result = dpo("hinge", sft_weight=0.5)
    assert result.loss.item() == pytest.approx(1.93)
    assert result.chosen_nll.item() == pytest.approx(2.0)


def test_what_is_logged_is_detached_and_in_units_of_beta_times_the_log_ratio():
    lp = CHOSEN.clone().requires_grad_()
    result = dpo_loss(lp, *PAIR[1:])
    assert result.loss.requires_grad
    assert not any(getattr(result, name).requires_grad for name in vars(result) if name != "loss")
    # 0.1 * 0.6, 0.1 * -0.1
    assert result.chosen_reward.item() == pytest.approx(0.06, rel=1e-4)
    assert result.rejected_reward.item() == pytest.approx(-0.01, rel=1e-4)
    assert result.margin_mean.item() == pytest.approx(0.07, rel=1e-4)
    assert result.accuracy.item() == 1.0


@pytest.mark.parametrize(("eta", "expected"), [(1.0, 0.04), (2.0, 0.09)])  # (0.7 - 0.5)^2, (0.7 - 1)^2
def test_rebel_regresses_the_log_ratio_gap_on_eta_times_the_reward_gap(eta, expected):
    assert rebel(eta=eta).loss.item() == pytest.approx(expected, rel=1e-4)


def test_rebel_with_inverse_eta_on_the_log_ratio_is_smaller_by_eta_squared():
    # (0.7 / 2 - 0.5)^2 = 0.0225 = 0.09 / 2^2
    assert rebel(eta=2.0, scaling="inv_eta_on_log_ratio").loss.item() == pytest.approx(0.0225, rel=1e-4)


def test_rebel_length_normalised_uses_nats_per_token():
    # (0.125 - 2 * 0.5)^2
    assert rebel(eta=2.0, length_normalised=True).loss.item() == pytest.approx(0.875**2, rel=1e-4)


def test_rebel_does_not_feel_the_order_within_a_pair_and_its_margin_is_in_units_of_reward():
    swapped = [PAIR[i] for i in (1, 0, 3, 2, 5, 4, 7, 6)]
    other = rebel_loss(*swapped, torch.tensor([0.5]), torch.tensor([1.0]), eta=2.0)
    result = rebel(eta=2.0)
    assert other.loss.item() == pytest.approx(result.loss.item())
    assert result.margin_mean.item() == pytest.approx(0.35, rel=1e-4)  # 0.7 / 2
    assert result.accuracy.item() == other.accuracy.item() == 1.0
    assert rebel(0.5, 1.0).accuracy.item() == 0.0


def two_pairs(left_out):
    """PAIR twice; the second is left out for the given reason."""
    doubled = [torch.cat([t, t]) for t in PAIR]
    rewards = torch.tensor([1.0, 1.0]), torch.tensor([0.5, 0.5])
    if left_out == "mask":
        doubled[4][1] = False
        doubled[0][1] = -math.inf
    else:
        rewards[1][1] = math.nan
    doubled[0].requires_grad_()
    return doubled, rewards


@pytest.mark.parametrize("left_out", ["mask", "nan"])
def test_a_pair_without_verdict_or_trained_token_leaves_loss_count_and_gradient(left_out):
    doubled, rewards = two_pairs(left_out)
    result = rebel_loss(*doubled, *rewards)
    assert result.loss.item() == pytest.approx(0.04, rel=1e-4)  # divided by one pair
    assert result.accuracy.item() == 1.0
    result.loss.backward()
    assert (doubled[0].grad[1] == 0).all() and doubled[0].grad.isfinite().all()


def test_without_a_pair_there_is_an_error_but_a_part_of_a_larger_batch_contributes_nothing():
    masks = torch.zeros_like(MASKS[0]), MASKS[1]
    arguments = (CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, *masks, *IMAGES)
    with pytest.raises(ValueError, match="no pair to divide by among 1"):
        dpo_loss(*arguments)
    assert dpo_loss(*arguments, num_pairs=4).loss.item() == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_type": "simpo"}, "choose one of sigmoid, hinge, ipo, sigmoid_norm"),
        ({"beta": 0.0}, "must be above 0"),
        ({"label_smoothing": 0.5}, r"in \[0, 0.5\)"),
        ({"loss_type": "ipo", "label_smoothing": 0.1}, "only sigmoid and sigmoid_norm use it"),
    ],
)
def test_settings_without_meaning_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        dpo_loss(*PAIR, **options)


def test_rebel_refuses_an_unknown_scaling_and_eta_zero():
    with pytest.raises(ValueError, match="'eta_on_reward' or 'inv_eta_on_log_ratio'"):
        rebel(scaling="eta")
    with pytest.raises(ValueError, match="eta=0"):
        rebel(eta=0)


def test_sides_with_different_numbers_of_rows_are_refused():
    doubled = [torch.cat([t, t]) if i % 2 else t for i, t in enumerate(PAIR)]
    with pytest.raises(ValueError, match="Index both with the same Pairs"):
        dpo_loss(*doubled)


def test_the_registry_holds_every_loss_type_and_rebel():
    assert set(PREFERENCE_LOSSES) == {"sigmoid", "hinge", "ipo", "sigmoid_norm", "rebel"}
    assert PREFERENCE_LOSSES["hinge"](*PAIR).loss.item() == pytest.approx(0.93)
