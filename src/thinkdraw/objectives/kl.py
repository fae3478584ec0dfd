"""Per-token estimates of KL(policy ‖ reference) on tokens sampled from the policy.

With d = log_probs − ref_log_probs. The value of an estimator and its *gradient* estimate different things.
The gradients below hold in expectation for tokens of the current policy. For tokens of an older policy, multiply by
(log_probs − old_log_probs).exp().detach(). k2 and k3 have zero gradient while policy = reference.
Schulman, "Approximating KL divergence" (joschu.net/blog/kl-approx.html).
"""

from torch import Tensor


def kl_k1(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Compute d: unbiased, of either sign.

    log_probs, ref_log_probs: (B, T) nats. Returns (B, T) nats.
    Its gradient ∇log_probs has expectation zero: use k1 inside the reward (detached), never as a loss.
    """
    return log_probs - ref_log_probs.detach()


def kl_k2(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Compute d²/2: biased, never negative.

    log_probs, ref_log_probs: (B, T) nats. Returns (B, T) nats.
    Its gradient d·∇log_probs has exactly the gradient of KL(policy ‖ reference) as expectation.
    """
    return 0.5 * (log_probs - ref_log_probs.detach()).square()


def kl_k3(log_probs: Tensor, ref_log_probs: Tensor) -> Tensor:
    """Compute exp(−d) + d − 1: unbiased, never negative, the GRPO paper's choice.

    log_probs, ref_log_probs: (B, T) nats. Returns (B, T) nats.
    Its gradient (1 − exp(−d))·∇log_probs has the gradient of the *forward* KL(reference ‖ policy) as expectation.
    For small d it equals k2's; where the reference is much likelier than the policy, it grows exponentially.
    Shao et al. 2024 (arXiv 2402.03300).
    """
    minus_d = ref_log_probs.detach() - log_probs
    # expm1: near d = 0, exp(−d) − 1 would lose all digits in fp32.
    # expm1: near d = 0, exp(−d) − 1 would lose all digits in fp32.
    return minus_d.expm1() - minus_d
