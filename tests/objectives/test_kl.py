import math

import pytest
import torch

from thinkdraw.objectives import masked_modality_mean
from thinkdraw.objectives.kl import kl_k1, kl_k2, kl_k3

LOGITS = torch.tensor([0.3, -0.4, 1.1, 0.0], dtype=torch.float64)
REF = torch.tensor([0.0, 0.5, 0.2, -0.3], dtype=torch.float64).log_softmax(-1)


def gradients(estimator, logits):
    """Expected gradient of the estimator as a loss, and of the true KL(policy ‖ reference), by full summation."""
    logits = logits.clone().requires_grad_()
    lp = logits.log_softmax(-1)
    (of_loss,) = torch.autograd.grad((lp.exp().detach() * estimator(lp, REF)).sum(), logits, retain_graph=True)
    (of_kl,) = torch.autograd.grad((lp.exp() * (lp - REF)).sum(), logits)
    return of_loss, of_kl


def test_estimators_match_hand_arithmetic():
    # d = log 2: k1 = 0.6931, k2 = 0.6931² / 2 = 0.2402, k3 = 1/2 + 0.6931 − 1 = 0.1931
    lp, ref = torch.tensor([[math.log(0.5)]]), torch.tensor([[math.log(0.25)]])
    assert kl_k1(lp, ref).item() == pytest.approx(0.693147)
    assert kl_k2(lp, ref).item() == pytest.approx(0.240227, rel=1e-5)
    assert kl_k3(lp, ref).item() == pytest.approx(0.193147, rel=1e-5)


@pytest.mark.parametrize("estimator", [kl_k1, kl_k3])
def test_k1_and_k3_are_unbiased(estimator):
    lp = LOGITS.log_softmax(-1)
    true = (lp.exp() * (lp - REF)).sum()
    torch.testing.assert_close((lp.exp() * estimator(lp, REF)).sum(), true)


@pytest.mark.parametrize("estimator", [kl_k2, kl_k3])
def test_k2_and_k3_are_never_negative_and_zero_at_equality(estimator):
    lp = LOGITS.log_softmax(-1)
    assert (estimator(lp, REF) > 0).all()
    assert (estimator(lp, lp) == 0).all()


@pytest.mark.parametrize("estimator", [kl_k2, kl_k3])
def test_k2_and_k3_have_zero_gradient_at_equality_and_not_on_a_perturbed_policy(estimator):
    at_equality, _ = gradients(estimator, REF)
    perturbed, _ = gradients(estimator, LOGITS)
    torch.testing.assert_close(at_equality, torch.zeros(4, dtype=torch.float64))
    assert perturbed.abs().max() > 0.01


def test_k1_as_a_loss_has_expected_gradient_zero_whatever_the_distance():
    of_loss, of_kl = gradients(kl_k1, LOGITS)
    torch.testing.assert_close(of_loss, torch.zeros(4, dtype=torch.float64))
    assert of_kl.abs().max() > 0.01


def test_k2_as_a_loss_has_the_gradient_of_the_reverse_kl():
    of_loss, of_kl = gradients(kl_k2, LOGITS)
    torch.testing.assert_close(of_loss, of_kl)


def test_k3_as_a_loss_has_the_gradient_of_the_forward_kl():
    of_loss, _ = gradients(kl_k3, LOGITS)
    # ∇ KL(reference ‖ policy) with respect to the logits is policy − reference
    torch.testing.assert_close(of_loss, LOGITS.softmax(-1) - REF.exp())


def test_the_reference_receives_no_gradient():
    lp, ref = torch.tensor([-1.0], requires_grad=True), torch.tensor([-2.0], requires_grad=True)
    (kl_k1(lp, ref) + kl_k2(lp, ref) + kl_k3(lp, ref)).sum().backward()
    assert ref.grad is None


def test_modality_means_are_at_hand_beside_the_estimators():
    means = masked_modality_mean(torch.tensor([[1.0, 3.0]]), torch.ones(1, 2).bool(), torch.tensor([[False, True]]))
    assert (means.text.item(), means.image.item()) == (1.0, 3.0)
