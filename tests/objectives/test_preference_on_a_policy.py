"""Properties of the preference losses on a tiny softmax policy that has moved away from its reference."""

import pytest
import torch

from thinkdraw.objectives import PREFERENCE_LOSSES

ALL = ["sigmoid", "hinge", "ipo", "sigmoid_norm", "rebel"]
DPO = ALL[:-1]


class TinyPairs:
    """Six pairs on a softmax policy with a logit per position and token: T = 7 chosen, 6 rejected, V = 5, 3 text."""

    def __init__(self, moved=0.3):
        generator = torch.Generator().manual_seed(0)
        self.ref = torch.randn(7, 5, generator=generator, dtype=torch.float64)
        noise = torch.randn(7, 5, generator=generator, dtype=torch.float64)
        self.logits = (self.ref + moved * noise).requires_grad_()
        self.tokens = [torch.randint(0, 5, (6, t), generator=generator) for t in (7, 6)]
        self.is_image = [torch.arange(t).ge(3).expand(6, t) for t in (7, 6)]
        self.mask = [torch.rand(6, t, generator=generator) < 0.8 for t in (7, 6)]
        self.mask[0][1, :3] = False  # a picture without thought
        self.mask[1][4] = False  # a pair that is left out
        self.rewards = list(torch.rand(2, 6, generator=generator, dtype=torch.float64))

    def lp(self, side, logits):
        tokens = self.tokens[side]
        return logits.log_softmax(-1)[torch.arange(tokens.shape[1]), tokens]

    def loss(self, name, rows=slice(None), **options):
        policy, ref = ([self.lp(side, logits) for side in (0, 1)] for logits in (self.logits, self.ref))
        tensors = [*policy, *ref, *self.mask, *self.is_image, *(self.rewards if name == "rebel" else [])]
        return PREFERENCE_LOSSES[name](*(t[rows] for t in tensors), **options)

    def gradient(self, name, **options):
        return torch.autograd.grad(self.loss(name, **options).loss, self.logits)[0]


@pytest.mark.parametrize("name", ALL)
def test_micro_batches_with_the_global_number_of_pairs_give_the_gradient_of_the_whole_batch(name):
    policy = TinyPairs()
    whole = policy.loss(name)
    (expected,) = torch.autograd.grad(whole.loss, policy.logits)
    parts = [policy.loss(name, rows, num_pairs=5) for rows in ([4], [1], [0, 5], [2, 3])]  # pair 4 alone counts nothing
    torch.testing.assert_close(torch.autograd.grad(sum(p.loss for p in parts), policy.logits)[0], expected)
    for field in vars(whole):  # what is logged adds up too
        torch.testing.assert_close(sum(getattr(p, field) for p in parts), getattr(whole, field))


OPTIONS = [
    *((name, option) for name in ALL for option in ({"text_weight": 3.0}, {"image_weight": 3.0})),
    *((name, {"beta": 0.5}) for name in DPO),
    *((name, {"sft_weight": 0.1}) for name in DPO),
    *((name, {"label_smoothing": 0.2}) for name in ("sigmoid", "sigmoid_norm")),
    ("rebel", {"eta": 3.0}),
    ("rebel", {"eta": 3.0, "scaling": "inv_eta_on_log_ratio"}),
    ("rebel", {"length_normalised": True}),
]


@pytest.mark.parametrize(("name", "option"), OPTIONS, ids=str)
def test_every_option_changes_the_gradient_of_a_policy_that_has_moved(name, option):
    policy = TinyPairs()
    base = policy.gradient(name)
    assert (policy.gradient(name, **option) - base).abs().max() > 1e-4 * base.abs().max() > 0


@pytest.mark.parametrize("name", DPO)
def test_coefficients_of_zero_cost_nothing(name):
    policy = TinyPairs()
    assert policy.loss(name, sft_weight=0.0, label_smoothing=0.0).loss.item() == policy.loss(name).loss.item()


@pytest.mark.parametrize("name", ALL)
def test_a_modality_of_weight_zero_gets_no_gradient(name):
    policy = TinyPairs()
    without_text, without_image = policy.gradient(name, text_weight=0.0), policy.gradient(name, image_weight=0.0)
    assert (without_text[:3] == 0).all() and without_text[3:].abs().max() > 0
    assert (without_image[3:] == 0).all() and without_image[:3].abs().max() > 0


def test_at_the_reference_the_dpo_gradient_is_half_beta_times_the_likelihood_gap():
    # d/dx of -log sigma(beta x) at 0 is -beta / 2, and there are 5 pairs
    policy = TinyPairs(moved=0.0)
    lp = [policy.lp(side, policy.logits).masked_fill(~policy.mask[side], 0.0).sum(1) for side in (0, 1)]
    gap = (lp[0] - lp[1])[[0, 1, 2, 3, 5]].sum() / 5
    (expected,) = torch.autograd.grad(-0.5 * 0.1 * gap, policy.logits)
    torch.testing.assert_close(policy.gradient("sigmoid"), expected)
    assert policy.loss("sigmoid").accuracy.item() == 0.0  # no margin yet


def test_with_a_huge_eta_the_rebel_gradient_is_the_pairwise_policy_gradient():
    # (delta - eta * gap)^2: the gradient is -2 eta * gap * grad delta as eta grows
    policy = TinyPairs(moved=0.0)
    lp = [policy.lp(side, policy.logits).masked_fill(~policy.mask[side], 0.0).sum(1) for side in (0, 1)]
    gap = policy.rewards[0] - policy.rewards[1]
    weighted = (gap * (lp[0] - lp[1]))[[0, 1, 2, 3, 5]].sum() / 5
    (expected,) = torch.autograd.grad(-2 * weighted, policy.logits)
    torch.testing.assert_close(policy.gradient("rebel", eta=1e6) / 1e6, expected)


@pytest.mark.parametrize("name", ALL)
def test_descent_widens_the_margin_of_the_preferred(name):
    policy = TinyPairs(moved=0.0)
    policy.rewards = [torch.ones(6).double(), torch.zeros(6).double()]
    gradient = policy.gradient(name)
    before = policy.loss(name).margin_mean.item()
    policy.logits = (policy.logits - 1e-3 * gradient / gradient.norm()).detach().requires_grad_()
    assert policy.loss(name).margin_mean.item() > before


@pytest.mark.parametrize("name", ALL)
def test_reference_and_sampling_policy_receive_no_gradient(name):
    policy = TinyPairs()
    policy.ref.requires_grad_()
    policy.loss(name).loss.backward()
    assert policy.ref.grad is None


@pytest.mark.parametrize("name", ALL)
def test_untrained_positions_may_hold_anything(name):
    policy = TinyPairs()
    expected = policy.loss(name).loss.item()
    lp = [
        policy.lp(s, policy.logits).detach().masked_fill(~policy.mask[s], -torch.inf).requires_grad_() for s in (0, 1)
    ]
    ref = [policy.lp(s, policy.ref).masked_fill(~policy.mask[s], -torch.inf) for s in (0, 1)]
    rewards = policy.rewards if name == "rebel" else []
    loss = PREFERENCE_LOSSES[name](*lp, *ref, *policy.mask, *policy.is_image, *rewards).loss
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert all((t.grad[~m] == 0).all() and t.grad.isfinite().all() for t, m in zip(lp, policy.mask))
