"""Per-token estimates of KL(policy ‖ reference) on tokens sampled from the policy.

With d = log_probs − ref_log_probs. What an estimator's value estimates and what its *gradient* does are two things; the
gradients below hold in expectation for tokens of the current policy. On tokens of an older policy multiply by
(log_probs − old_log_probs).exp().detach(). k2 and k3 have zero gradient while policy = reference.
Schulman, "Approximating KL divergence" (joschu.net/blog/kl-approx.html).
"""

from torch import Tensor


def kl_k1(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """d: unbiased, of either sign.

    log_probs, ref_log_probs: (B, T) nats; returns (B, T) nats.
    Gradient ∇log_probs, whose expectation is zero: for use inside the reward (detached), never as a loss.
    """
    return log_probs - ref_log_probs.detach()


def kl_k2(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """d²/2: biased, never negative.

    log_probs, ref_log_probs: (B, T) nats; returns (B, T) nats.
    Gradient d·∇log_probs, whose expectation is exactly the gradient of KL(policy ‖ reference).
    """
    return 0.5 * (log_probs - ref_log_probs.detach()).square()


def kl_k3(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """exp(−d) + d − 1: unbiased, never negative, the GRPO paper's choice.

    log_probs, ref_log_probs: (B, T) nats; returns (B, T) nats.
    Gradient (1 − exp(−d))·∇log_probs, whose expectation is the gradient of the *forward* KL(reference ‖ policy): for
    small d the same as k2's; where the reference is much likelier than the policy it grows exponentially.
    Shao et al. 2024 (arXiv 2402.03300).
    """
    minus_d = ref_log_probs.detach() - log_probs
    return minus_d.expm1() - minus_d
