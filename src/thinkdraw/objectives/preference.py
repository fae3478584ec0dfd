"""Losses on pairs of rollouts of one prompt: the DPO family and REBEL."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from thinkdraw.objectives.counts import check_token_axes
from thinkdraw.objectives.pairs import Pairs, accepted_rows, pairs_from_rewards

__all__ = ["Pairs", "PreferenceLoss", "dpo_loss", "accepted_rows", "pairs_from_rewards", "rebel_loss"]


@dataclass(frozen=True)
class PreferenceLoss:
    """A loss on pairs and the scalars to log with it; all but loss are detached.

    Each is a sum over this batch's pairs divided by num_pairs, so all of them add up over micro-batches and ranks.
    chosen_reward, rejected_reward: the policy's implicit rewards β·Δ, with Δ the log-ratio to the reference as it
        enters the loss. For `rebel_loss`: Δ/η of rollout 1 and 2, in units of the reward.
    margin_mean: their difference.
    accuracy: share of pairs whose margin has the sign of the preference; 0 while policy = reference.
    chosen_nll: nats per token of the chosen rollouts (of rollout 1). It rises where the likelihood of both falls.
    """

    loss: Tensor
    margin_mean: Tensor
    accuracy: Tensor
    chosen_reward: Tensor
    rejected_reward: Tensor
    chosen_nll: Tensor


def dpo_loss(
    chosen_log_probs: Tensor,
    rejected_log_probs: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    chosen_mask: Tensor,
    rejected_mask: Tensor,
    chosen_is_image: Tensor,
    rejected_is_image: Tensor,
    *,
    loss_type: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    text_weight: float = 1.0,
    image_weight: float = 1.0,
    sft_weight: float = 0.0,
    num_pairs: float | None = None,
) -> PreferenceLoss:
    """Average a loss of Δ = [lp − lp_ref](chosen) − [lp − lp_ref](rejected).

    *_log_probs, ref_*: (B, T) nats, policy and frozen reference under the same guidance; no gradient to the
        reference.
    *_mask, *_is_image: (B, T) bool, True = trained; chosen and rejected may differ in T.
    loss_type: `sigmoid` −log σ(βΔ) and `hinge` relu(1 − βΔ): both with lp = text_weight · Σ text + image_weight · Σ
        image, which at weights 1/1 is the log-likelihood of the rollout.
    `ipo` (Δ − 1/(2β))² and `sigmoid_norm` −log σ(βΔ): both with lp = (text_weight · mean of text + image_weight ·
    mean of image) / (sum of the weights of what the row has). These are nats per token whatever the lengths, and
    576 image tokens do not outvote a thought. TRL averages over all tokens; the two agree where rows have one
    modality.
    beta: for the means it must be larger: −log σ bends at Δ = 1/β, and `ipo` aims at Δ = 1/(2β) nats *per token*.
    label_smoothing: in [0, 0.5), share of flipped labels, for sigmoid and sigmoid_norm (conservative DPO).
    sft_weight: weight of the chosen rollouts' negative log-likelihood in nats per token, averaged as for `ipo`.
    num_pairs: global count of pairs when accumulating; losses then *add up*. A pair counts if both rows train a
        token.
    Raises ValueError for an unknown loss_type, settings out of range, or no pair to divide by.
    DPO arXiv 2305.18290 · IPO 2310.12036 · hinge: SLiC 2305.10425 · sigmoid_norm: Tulu 3 2411.15124.
    """
    if loss_type not in _DPO_LOSSES:
        raise ValueError(f"loss_type={loss_type!r}: choose one of {', '.join(_DPO_LOSSES)}.")
    choice = _DPO_LOSSES[loss_type]
    if beta <= 0:
        raise ValueError(f"beta={beta}: it weighs the distance to the reference and must be above 0. 0.1 is usual.")
    if not 0 <= label_smoothing < 0.5 or (label_smoothing and not choice.smooths):
        raise ValueError(
            f"label_smoothing={label_smoothing} with loss_type={loss_type!r}: it is a share of flipped labels in "
            "[0, 0.5), and only sigmoid and sigmoid_norm use it. Set it to 0, or choose one of these."
        )
    chosen = _Side(chosen_log_probs, ref_chosen, chosen_mask, chosen_is_image, "chosen")
    rejected = _Side(rejected_log_probs, ref_rejected, rejected_mask, rejected_is_image, "rejected")
    valid = _valid_pairs(chosen, rejected)
    chosen_ratio = chosen.log_ratio(text_weight, image_weight, choice.uses_mean)
    rejected_ratio = rejected.log_ratio(text_weight, image_weight, choice.uses_mean)
    delta = chosen_ratio - rejected_ratio
    per_pair = choice.loss(delta, beta)
    if label_smoothing:
        per_pair = (1 - label_smoothing) * per_pair + label_smoothing * choice.loss(-delta, beta)
    chosen_nll = chosen.nll(text_weight, image_weight)
    if sft_weight:
        per_pair = per_pair + sft_weight * chosen_nll
    rewards = (beta * chosen_ratio.detach(), beta * rejected_ratio.detach())
    return _mean_over_pairs(per_pair, delta.detach() > 0, rewards, chosen_nll, valid, num_pairs)


def rebel_loss(
    log_probs_1: Tensor,
    log_probs_2: Tensor,
    old_1: Tensor,
    old_2: Tensor,
    mask_1: Tensor,
    mask_2: Tensor,
    is_image_1: Tensor,
    is_image_2: Tensor,
    rewards_1: Tensor,
    rewards_2: Tensor,
    *,
    eta: float = 1.0,
    scaling: Literal["eta_on_reward", "inv_eta_on_log_ratio"] = "eta_on_reward",
    length_normalised: bool = False,
    text_weight: float = 1.0,
    image_weight: float = 1.0,
    num_pairs: float | None = None,
) -> PreferenceLoss:
    """Regress the reward gap: average (Δ − η(r1 − r2))² over pairs.

    With Δ = [lp − lp_old](1) − [lp − lp_old](2).
    log_probs_*, old_*: (B, T) nats, old under the *sampling* policy, without gradient. Recompute old where it was
        stored in bf16: an error of 1e-3 on each of 600 tokens is as large as η(r1 − r2).
    mask_*, is_image_*: (B, T) bool, True = trained.
    rewards_1, rewards_2: (B,). A pair with a NaN reward is left out. The order within a pair does not matter.
    scaling: `eta_on_reward` as above (the published code). `inv_eta_on_log_ratio` (Δ/η − (r1 − r2))² (the paper):
        the same minimiser, with loss and gradient divided by η².
    length_normalised: lp is the mean that `dpo_loss` describes, instead of the weighted sum over trained tokens.
    num_pairs: global count of pairs when accumulating; losses then *add up*.
    Raises ValueError for an unknown scaling, eta not above 0, or no pair to divide by.
    Gao et al. 2024 (arXiv 2404.16767).
    """
    if scaling not in ("eta_on_reward", "inv_eta_on_log_ratio"):
        raise ValueError(f"scaling={scaling!r}: choose 'eta_on_reward' or 'inv_eta_on_log_ratio'.")
    if eta <= 0:
        raise ValueError(f"eta={eta}: it turns a reward gap into a log-ratio and must be above 0. 1.0 is the paper's.")
    first = _Side(log_probs_1, old_1, mask_1, is_image_1, "1")
    second = _Side(log_probs_2, old_2, mask_2, is_image_2, "2")
    valid = _valid_pairs(first, second)
    for name, rewards in {"rewards_1": rewards_1, "rewards_2": rewards_2}.items():
        if rewards.shape != valid.shape or rewards.isinf().any():
            raise ValueError(f"{name} is {tuple(rewards.shape)}: pass {tuple(valid.shape)}, finite or NaN.")
    gap = (rewards_1 - rewards_2).detach()
    valid = valid & ~gap.isnan()
    gap = gap.masked_fill(~valid, 0.0)
    ratio_1 = first.log_ratio(text_weight, image_weight, length_normalised)
    ratio_2 = second.log_ratio(text_weight, image_weight, length_normalised)
    residual = ratio_1 - ratio_2 - eta * gap
    if scaling == "inv_eta_on_log_ratio":
        residual = residual / eta
    correct = (ratio_1 - ratio_2).detach() * gap > 0
    implied = (ratio_1.detach() / eta, ratio_2.detach() / eta)
    nll = first.nll(text_weight, image_weight)
    return _mean_over_pairs(residual.square(), correct, implied, nll, valid, num_pairs)


@dataclass(frozen=True)
class _Side:
    """One rollout of each pair: log-probs of the policy, and of a baseline.

    baseline: log-probs of the reference (DPO) or of the sampling policy (REBEL).
    """

    log_probs: Tensor
    baseline: Tensor
    mask: Tensor
    is_image: Tensor
    name: str

    def __post_init__(self) -> None:
        names = {f"log_probs of {self.name}": self.log_probs, f"baseline log_probs of {self.name}": self.baseline}
        check_token_axes(self.mask, self.is_image, **names)

    def log_ratio(self, text_weight: float, image_weight: float, mean: bool) -> Tensor:
        """Sum or average log-probs minus baseline over each row, (B,)."""
        # Filled before the subtraction: a forced or padded position may hold -inf in both.
        difference = self._filled(self.log_probs) - self._filled(self.baseline.detach())
        return self._reduced(difference, text_weight, image_weight, mean)

    def nll(self, text_weight: float, image_weight: float) -> Tensor:
        """Average minus the log-probs over each row, (B,) nats per token."""
        return -self._reduced(self._filled(self.log_probs), text_weight, image_weight, mean=True)

    def _filled(self, values: Tensor) -> Tensor:
        """Set untrained tokens to 0, in float32 or wider."""
        return values.masked_fill(~self.mask, 0.0).to(torch.promote_types(values.dtype, torch.float32))

    def _reduced(self, values: Tensor, text_weight: float, image_weight: float, mean: bool) -> Tensor:
        """Weight text and image tokens, and sum or average them over each row, (B,)."""
        total = weight_of_row = torch.zeros_like(values[:, 0])
        for segment, weight in ((self.mask & ~self.is_image, text_weight), (self.mask & self.is_image, image_weight)):
            summed = values.masked_fill(~segment, 0.0).sum(1)
            length = segment.sum(1)
            total = total + weight * (summed / length.clamp(min=1) if mean else summed)
            weight_of_row = weight_of_row + weight * (length > 0)
        return total / weight_of_row.masked_fill(weight_of_row == 0, 1.0) if mean else total


def _valid_pairs(first: _Side, second: _Side) -> Tensor:
    """Mark the pairs (B,) of which both rows train a token."""
    if first.mask.shape[0] != second.mask.shape[0]:
        raise ValueError(
            f"{first.mask.shape[0]} rows of {first.name} and {second.mask.shape[0]} of {second.name}: row k of both is "
            "one pair. Index both with the same Pairs."
        )
    return first.mask.any(1) & second.mask.any(1)


def _mean_over_pairs(
    per_pair: Tensor,
    correct: Tensor,
    rewards: tuple[Tensor, Tensor],
    nll: Tensor,
    valid: Tensor,
    num_pairs: float | None,
) -> PreferenceLoss:
    """Average everything over the valid pairs, divided by num_pairs."""
    num_pairs = float(valid.sum()) if num_pairs is None else num_pairs
    if num_pairs <= 0:
        raise ValueError(
            f"no pair to divide by among {len(valid)}: a pair needs a trained token on both sides (and two rewards). "
            "Skip the batch, or pass the global num_pairs."
        )

    def mean(values: Tensor) -> Tensor:
        return values.to(per_pair.dtype).masked_fill(~valid, 0.0).sum() / num_pairs

    return PreferenceLoss(
        loss=mean(per_pair),
        margin_mean=mean(rewards[0] - rewards[1]),
        accuracy=mean(correct),
        chosen_reward=mean(rewards[0]),
        rejected_reward=mean(rewards[1]),
        chosen_nll=mean(nll.detach()),
    )


@dataclass(frozen=True)
class _DpoLoss:
    """A loss of Δ and β.

    uses_mean: Δ is a mean over tokens instead of a sum.
    smooths: labels may be smoothed.
    """

    loss: Callable[[Tensor, float], Tensor]
    uses_mean: bool
    smooths: bool


def _log_sigmoid(delta: Tensor, beta: float) -> Tensor:
    """Compute −log σ(βΔ)."""
    return -F.logsigmoid(beta * delta)


_DPO_LOSSES = {
    "sigmoid": _DpoLoss(_log_sigmoid, uses_mean=False, smooths=True),
    "hinge": _DpoLoss(lambda delta, beta: (1 - beta * delta).relu(), uses_mean=False, smooths=False),
    "ipo": _DpoLoss(lambda delta, beta: (delta - 1 / (2 * beta)).square(), uses_mean=True, smooths=False),
    "sigmoid_norm": _DpoLoss(_log_sigmoid, uses_mean=True, smooths=True),
}
