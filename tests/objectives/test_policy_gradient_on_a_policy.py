"""Properties of the policy losses on a tiny softmax policy, for every variant."""

import math

import pytest
import torch

from thinkdraw.objectives.counts import count_segments, masked_modality_mean
from thinkdraw.objectives.entropy import token_entropy
from thinkdraw.objectives.kl import kl_k2, kl_k3
from thinkdraw.objectives.policy_gradient import VARIANTS, clipped_loss

BUDGETS = {"text_budget": 3.0, "image_budget": 5.0}
ALL = ["grpo", "dapo", "bnpo", "dr_grpo", "gspo", "cispo"]


def budgets(variant):
    return BUDGETS if variant == "dr_grpo" else {}


class Tiny:
    """A softmax policy with a logit per position and token, shared by all rows: B = 6 rows, T = 7, V = 5."""

    def __init__(self, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(7, 5, generator=generator, dtype=torch.float64).requires_grad_()
        self.tokens = torch.randint(0, 5, (6, 7), generator=generator)
        self.advantages = torch.randn(6, generator=generator, dtype=torch.float64)
        self.is_image = torch.arange(7).ge(3).expand(6, 7)
        self.mask = torch.rand(6, 7, generator=generator) < 0.7
        self.mask[1, :3] = False  # a picture without thought
        self.mask[4] = False  # no verdict
        self.noise = 0.5 * torch.randn(6, 7, generator=generator, dtype=torch.float64)

    def log_probs(self):
        lp = self.logits.log_softmax(-1)
        return lp[torch.arange(7), self.tokens]

    def loss(self, variant, old=None, rows=slice(None), **options):
        lp = self.log_probs()
        old = lp if old is None else old  # the first update: the same tensor, which must not cancel the gradient
        return clipped_loss(
            lp[rows], old[rows], self.advantages[rows], self.mask[rows], self.is_image[rows],
            variant=variant, **budgets(variant), **options,
        )  # fmt: skip

    def gradient(self, loss):
        return torch.autograd.grad(loss, self.logits)[0]


def reinforce(policy, denominator):
    """−Σ A · lp by plain loops, each modality divided by its own denominator."""
    lp, total = policy.log_probs(), 0.0
    for segment, budget in ((policy.mask & ~policy.is_image, 3.0), (policy.mask & policy.is_image, 5.0)):
        rows = [i for i in range(6) if segment[i].any()]
        for i in rows:
            row_sum = -policy.advantages[i] * lp[i][segment[i]].sum()
            if denominator == "sequence":
                total = total + row_sum / segment[i].sum() / len(rows)
            elif denominator == "token":
                total = total + row_sum / segment.sum()
            else:
                total = total + row_sum / (5 * budget)  # 5 of the 6 rows train something
    return total


@pytest.mark.parametrize("variant", ALL)
def test_first_on_policy_gradient_is_the_reinforce_gradient(variant):
    policy = Tiny()
    expected = policy.gradient(reinforce(policy, VARIANTS[variant].denominator))
    torch.testing.assert_close(policy.gradient(policy.loss(variant).loss), expected)
    assert expected.abs().max() > 0.01


@pytest.mark.parametrize("variant", ALL)
def test_micro_batches_with_global_counts_give_the_gradient_of_the_whole_batch(variant):
    policy = Tiny()
    old = policy.log_probs().detach() - policy.noise  # off-policy, so that the clip is at work
    whole = policy.gradient(policy.loss(variant, old).loss)
    counts = count_segments(policy.mask, policy.is_image)
    # row 4 alone trains nothing; row 1 alone has no text
    parts = [policy.loss(variant, old, rows, counts=counts).loss for rows in ([4], [1], [0, 5], [2, 3])]
    torch.testing.assert_close(policy.gradient(sum(parts)), whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("variant", ALL)
def test_each_weight_changes_the_gradient_of_its_own_modality(variant):
    policy = Tiny()
    base = policy.gradient(policy.loss(variant).loss)
    text = policy.gradient(policy.loss(variant, text_weight=3.0).loss)
    image = policy.gradient(policy.loss(variant, image_weight=3.0).loss)
    torch.testing.assert_close(text, torch.cat([3 * base[:3], base[3:]]))
    torch.testing.assert_close(image, torch.cat([base[:3], 3 * base[3:]]))


CLIPPED = [v for v in ALL if v != "cispo"]
OPTIONS = [
    *((v, {"clip_low": 0.9}) for v in CLIPPED),
    *((v, {"clip_high": 3.0}) for v in CLIPPED),
    ("cispo", {"cispo_max": 1.01}),
    ("grpo", {"denominator": "token"}),
    ("dapo", {"denominator": "sequence"}),
    ("dr_grpo", {"text_budget": 30.0}),
    ("dr_grpo", {"image_budget": 50.0}),
]


@pytest.mark.parametrize(("variant", "option"), OPTIONS, ids=str)
def test_every_option_changes_the_gradient_off_policy(variant, option):
    policy = Tiny()
    old = policy.log_probs().detach() - policy.noise

    def gradient(**options):
        arguments = (policy.log_probs(), old, policy.advantages, policy.mask, policy.is_image)
        return policy.gradient(clipped_loss(*arguments, variant=variant, **(budgets(variant) | options)).loss)

    base = gradient()
    assert (gradient(**option) - base).abs().max() > 1e-3 * base.abs().max() > 0


@pytest.mark.parametrize("variant", ALL)
@pytest.mark.parametrize("term", ["kl_k2", "kl_k3", "entropy"])
def test_a_penalty_changes_the_gradient_of_a_moved_policy_and_a_coefficient_of_zero_does_not(variant, term):
    policy = Tiny()
    ref = (policy.log_probs() - policy.noise).detach()
    values = {
        "kl_k2": lambda: kl_k2(policy.log_probs(), ref),
        "kl_k3": lambda: kl_k3(policy.log_probs(), ref),
        "entropy": lambda: token_entropy(policy.logits).expand(6, 7),
    }[term]()
    penalty = sum(masked_modality_mean(values, policy.mask, policy.is_image))
    base = policy.gradient(policy.loss(variant).loss)
    gradients = [
        torch.autograd.grad(policy.loss(variant).loss + c * penalty, policy.logits, retain_graph=True)[0]
        for c in (0.0, 0.1)
    ]
    torch.testing.assert_close(gradients[0], base)
    assert (gradients[1] - base).abs().max() > 1e-3 * base.abs().max() > 0


@pytest.mark.parametrize("variant", ALL)
def test_untrained_positions_may_hold_anything(variant):
    policy = Tiny()
    expected = policy.loss(variant).loss.item()
    lp = policy.log_probs().detach().masked_fill(~policy.mask, -math.inf).requires_grad_()
    advantages = policy.advantages.clone()
    advantages[4] = math.nan
    result = clipped_loss(lp, lp, advantages, policy.mask, policy.is_image, variant=variant, **budgets(variant))
    assert result.loss.item() == pytest.approx(expected)
    result.loss.backward()
    assert (lp.grad[~policy.mask] == 0).all() and lp.grad.isfinite().all()
