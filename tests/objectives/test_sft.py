import pytest
import torch

from thinkdraw.objectives.counts import count_segments
from thinkdraw.objectives.sft import segment_loss

NLL = torch.tensor([[2.0, 4.0, 1.0, 1.0, 1.0], [9.0, 6.0, 3.0, 3.0, 9.0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0]]).bool()
IS_IMAGE = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]).bool()


def test_segment_reduction_weighs_the_mean_of_each_modality():
    # text (2 + 4 + 6) / 3 = 4, image (1 + 1 + 1 + 3 + 3) / 5 = 1.8  ->  0.5 · 4 + 2 · 1.8 = 5.6
    assert segment_loss(NLL, MASK, IS_IMAGE, 0.5, 2.0, "segment").item() == pytest.approx(5.6)


def test_token_reduction_divides_the_weighted_sum_by_all_trained_tokens():
    # (0.5 · 12 + 2 · 9) / 8 = 3
    assert segment_loss(NLL, MASK, IS_IMAGE, 0.5, 2.0, "token").item() == pytest.approx(3.0)


def test_token_weights_2_and_1_equal_segment_weights_in_ratio_2_times_text_over_image_tokens():
    # 3 text and 5 image tokens: 2·12/8 + 1·9/8 = (6/8)·4 + (5/8)·1.8
    token = segment_loss(NLL, MASK, IS_IMAGE, 2.0, 1.0, "token")
    assert segment_loss(NLL, MASK, IS_IMAGE, 6 / 8, 5 / 8, "segment").item() == pytest.approx(token.item())


@pytest.mark.parametrize("reduction", ["segment", "token"])
def test_micro_batches_with_global_counts_give_the_gradient_of_the_whole_batch(reduction):
    torch.manual_seed(0)
    scale = torch.randn(6, 9, requires_grad=True)
    mask, is_image = torch.rand(6, 9) < 0.6, torch.rand(6, 9) < 0.7
    mask[2] = False  # a micro-batch of its own below: nothing to train, and no error
    (whole,) = torch.autograd.grad(segment_loss(scale.square(), mask, is_image, 0.35, 1.0, reduction), scale)
    counts = count_segments(mask, is_image)
    for rows in ([0, 1], [2], [3, 4, 5]):
        segment_loss(scale[rows].square(), mask[rows], is_image[rows], 0.35, 1.0, reduction, counts).backward()
    torch.testing.assert_close(scale.grad, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("reduction", ["segment", "token"])
def test_each_weight_that_is_not_zero_changes_the_gradient_of_its_modality_only(reduction):
    nll = NLL.clone().requires_grad_()
    (base,) = torch.autograd.grad(segment_loss(nll, MASK, IS_IMAGE, 1.0, 1.0, reduction), nll)
    (text,) = torch.autograd.grad(segment_loss(nll, MASK, IS_IMAGE, 3.0, 1.0, reduction), nll)
    (image,) = torch.autograd.grad(segment_loss(nll, MASK, IS_IMAGE, 1.0, 3.0, reduction), nll)
    torch.testing.assert_close(text, torch.where(IS_IMAGE, base, 3 * base))
    torch.testing.assert_close(image, torch.where(IS_IMAGE, 3 * base, base))


def test_pictures_without_thoughts_train_the_image_tokens_alone():
    # no text token: 0.35 · 0 + 1 · (1 + 1 + 1 + 3 + 3) / 5
    assert segment_loss(NLL, MASK & IS_IMAGE, IS_IMAGE).item() == pytest.approx(1.8)


def test_an_infinite_loss_at_an_untrained_token_does_not_reach_the_sum():
    nll = NLL.clone()
    nll[1, 0] = torch.inf
    assert segment_loss(nll, MASK, IS_IMAGE, 0.5, 2.0).item() == pytest.approx(5.6)


@pytest.mark.parametrize("reduction", ["segment", "token"])
def test_a_mask_without_a_trained_token_is_an_error(reduction):
    with pytest.raises(ValueError, match="at least one trained token"):
        segment_loss(NLL, torch.zeros_like(MASK), IS_IMAGE, reduction=reduction)


def test_an_unknown_reduction_names_the_known_ones():
    with pytest.raises(ValueError, match="'segment' or 'token'"):
        segment_loss(NLL, MASK, IS_IMAGE, reduction="mean")
