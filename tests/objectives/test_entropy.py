import json
import math

import pytest
import torch

from thinkdraw.objectives.entropy import AdaptiveEntropy, token_entropy


def test_entropy_is_log_v_for_uniform_and_zero_for_a_certain_token():
    logits = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, -math.inf, -math.inf, -math.inf]])
    torch.testing.assert_close(token_entropy(logits), torch.tensor([math.log(4), 0.0]))


def test_entropy_of_a_half_and_two_quarters_is_one_and_a_half_bits():
    # 1/2 · log 2 + 2 · 1/4 · log 4 = 1.5 log 2 = 1.0397 nats
    logits = torch.tensor([0.5, 0.25, 0.25]).log()
    assert token_entropy(logits).item() == pytest.approx(1.5 * math.log(2))


def test_suppressed_tokens_leave_value_and_gradient_finite():
    logits = torch.tensor([[0.3, -math.inf, 1.0, -200.0]], requires_grad=True)
    token_entropy(logits).sum().backward()
    (expected,) = torch.autograd.grad(token_entropy(kept := torch.tensor([[0.3, 1.0]], requires_grad=True)).sum(), kept)
    torch.testing.assert_close(logits.grad, torch.tensor([[expected[0, 0], 0.0, expected[0, 1], 0.0]]))


def test_half_precision_logits_give_float32_entropy():
    assert token_entropy(torch.zeros(2, 16384, dtype=torch.bfloat16)).dtype == torch.float32


def test_coefficient_rises_while_entropy_is_above_the_target_and_falls_below_zero_under_it():
    above, below = AdaptiveEntropy(target=2.0), AdaptiveEntropy(target=2.0)
    rising = [above.update(3.0) for _ in range(5)]
    falling = [below.update(1.0) for _ in range(5)]
    assert rising == sorted(rising) and rising[0] > 0
    assert falling == sorted(falling, reverse=True) and falling[0] < 0


def test_the_first_step_moves_psi_by_the_learning_rate():
    # Adam's first step is lr · sign(gradient): alpha = sinh(1e-3)
    assert AdaptiveEntropy(target=2.0, lr=1e-3).update(3.0) == pytest.approx(math.sinh(1e-3), rel=1e-6)


def test_steps_match_torchs_adam_on_minus_sinh_psi_times_the_error():
    controller = AdaptiveEntropy(target=2.0, band=0.0, lr=0.01, cap=10.0)
    psi = torch.zeros((), dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([psi], lr=0.01)
    for entropy in (3.0, 2.5, 1.0, 4.0, 0.5):
        adam.zero_grad()
        (-psi.sinh() * (entropy - 2.0)).backward()
        adam.step()
        assert controller.update(entropy) == pytest.approx(psi.sinh().item(), rel=1e-9)


def test_adding_coefficient_times_entropy_to_the_loss_brings_high_entropy_down_towards_the_target():
    logits = torch.tensor([0.0, 0.1, 0.0, -0.1], requires_grad=True)  # H = 1.38 nats, near log 4
    controller = AdaptiveEntropy(target=0.7, band=0.05, lr=1e-2, cap=0.5)
    for _ in range(400):
        entropy = token_entropy(logits)
        (gradient,) = torch.autograd.grad(controller.update(entropy.item()) * entropy, logits)
        logits = (logits - 0.5 * gradient).detach().requires_grad_()
    assert token_entropy(logits).item() < 1.0


def test_in_the_inner_half_of_the_band_the_coefficient_goes_back_to_zero_and_before_the_edge_it_moves():
    controller = AdaptiveEntropy(target=2.0, band=0.2, lr=1e-3)
    for _ in range(3):
        controller.update(3.0)
    # psi is 3e-3 after three steps of Adam on the same sign: 1e-3 less with each update inside, and then 0
    assert [controller.update(h) for h in (2.09, 1.91, 2.0, 2.0)] == pytest.approx([2e-3, 1e-3, 0, 0], abs=1e-6)
    # Adam has forgotten that H was too high: the first step below is a whole lr down
    assert controller.update(1.89) == pytest.approx(-1e-3, abs=1e-6)


def test_coefficient_stays_within_the_cap_and_a_saturated_controller_turns_at_once():
    controller = AdaptiveEntropy(target=2.0, lr=1e-2, cap=5e-2)
    assert max(controller.update(9.0) for _ in range(500)) == pytest.approx(5e-2)
    # psi is held at asinh(cap), so only Adam's own momentum delays the turn, not 500 accumulated steps
    values = [controller.update(-5.0) for _ in range(40)]
    assert values[-1] < 0 and min(values) >= -5e-2 - 1e-12


def test_state_is_plain_numbers_and_a_resumed_controller_continues_with_the_same_numbers():
    entropies = [2.9, 2.7, 1.2, 2.4, 1.5, 3.3]
    whole = AdaptiveEntropy(target=2.0)
    expected = [whole.update(h) for h in entropies]
    first = AdaptiveEntropy(target=2.0)
    for h in entropies[:3]:
        first.update(h)
    resumed = AdaptiveEntropy(target=0.0)  # the target comes with the state
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert resumed.coefficient == first.coefficient
    assert [resumed.update(h) for h in entropies[3:]] == expected[3:]


def test_a_state_with_other_keys_is_refused():
    with pytest.raises(ValueError, match="expected"):
        AdaptiveEntropy(target=2.0).load_state_dict({"psi": 0.0})


@pytest.mark.parametrize("entropy", [math.nan, math.inf])
def test_an_entropy_that_is_not_finite_is_an_error_and_leaves_the_state(entropy):
    controller = AdaptiveEntropy(target=2.0)
    with pytest.raises(ValueError, match="finite"):
        controller.update(entropy)
    assert controller.coefficient == 0.0


def test_settings_without_meaning_are_refused():
    with pytest.raises(ValueError, match="cap above 0"):
        AdaptiveEntropy(target=2.0, cap=0.0)
