"""Weights and masks that spread a rollout's advantage over its tokens.

Text tokens keep weight 1 unless a function says otherwise. There are two ways to use them.
`advantages[:, None] * weights` leaves the denominators as they are, so a mean weight below 1 shrinks the image term
(raise image_weight). For a bool mask, `mask & chosen` makes every mean one over the chosen tokens, those of KL and
entropy too.
Compute weights on whole groups, before a batch is split. Rows that leave the loss have mask False. Nothing here has
a gradient.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from thinkdraw.objectives.counts import check_token_axes


class StageWeights(NamedTuple):
    """(B, T) float32 each: for the advantage, in 0..1, and for the KL term, in 0.5..1."""

    advantage: Tensor
    kl: Tensor


def stage_weights(codes: Tensor, advantages: Tensor, mask: Tensor, is_image: Tensor, group_size: int) -> StageWeights:
    """Lower the advantage where pictures of opposite advantage look alike (STAGE).

    There the gradients of the two pictures would contradict each other.
    c̄ = mean cosine of a token's code vector with those of the group's rows j ≠ i at the same position, over rows
    with A_i·A_j ≤ 0. Advantage weight clamp((1 − c̄)/2, 0, 1), KL weight 0.5 + 0.5 · clamp(c̄ + 1, 0, 1).
    codes: (B, N, D) code vectors of each row's image tokens in order.
    advantages: (B,).
    mask, is_image: (B, T) bool. Tokens with mask False are compared with nothing; so are rows without a verdict.
    The weight is 1 where there is nothing to compare, for text, and where the opponents' codes are opposite (c̄ =
    −1).
    Raises ValueError if a row has more than N image tokens or the rows are not whole groups.
    STAGE (arXiv 2509.25027). Its code divides the weighted loss by the sum of the weights; here it is not divided.
    """
    _check_groups(codes, is_image, group_size)
    check_token_axes(mask, is_image)
    if advantages.shape != mask.shape[:1]:
        raise ValueError(f"advantages are {tuple(advantages.shape)}: pass {tuple(mask.shape[:1])}, before any weights.")
    advantages_PG = advantages.detach().reshape(-1, group_size)
    opposed_PGG = advantages_PG[:, :, None] * advantages_PG[:, None, :] <= 0
    similarity_BN, compared_BN = _similarity(codes, mask, is_image, opposed_PGG)
    advantage_BN = ((1 - similarity_BN) / 2).clamp(0, 1).masked_fill(~compared_BN, 1.0)
    kl_BN = (0.5 + 0.5 * (similarity_BN + 1).clamp(0, 1)).masked_fill(~compared_BN, 1.0)
    return StageWeights(_on_token_axis(advantage_BN, is_image, 1.0), _on_token_axis(kl_BN, is_image, 1.0))


def stage_entropy_reward(
    entropy: Tensor,
    ref_entropy: Tensor,
    mask: Tensor,
    is_image: Tensor,
    *,
    scale: float = 0.4,
    batch_mean: float | None = None,
) -> Tensor:
    """Compute what to add to the rewards (B,) to keep the reference's entropy (STAGE).

    It is scale · (1/(1 + (H_ref − H)²) − its mean over the batch), with H the mean entropy of a row's trained image
    tokens.
    entropy, ref_entropy: (B, T) nats.
    mask, is_image: (B, T) bool.
    batch_mean: of 1/(1 + (H_ref − H)²), where the batch lies in parts. Advantages relative to the group do not
        depend on it.
    The result is 0 for a row without trained image tokens, and for every row when policy = reference.
    STAGE (arXiv 2509.25027), scale from its code.
    """
    check_token_axes(mask, is_image, entropy=entropy, ref_entropy=ref_entropy)
    trained = mask & is_image
    num = trained.sum(1)
    gap = (ref_entropy - entropy).detach().masked_fill(~trained, 0.0).sum(1) / num.clamp(min=1)
    closeness = 1 / (1 + gap.square())
    if batch_mean is None:
        batch_mean = float(closeness[num > 0].mean()) if bool((num > 0).any()) else 0.0
    return (scale * (closeness - batch_mean)).masked_fill(num == 0, 0.0)


def critical_mask(
    codes: Tensor,
    entropy: Tensor,
    mask: Tensor,
    is_image: Tensor,
    group_size: int,
    *,
    first_frac: float = 0.1,
    entropy_gradient_frac: float = 0.1,
    dissimilar_frac: float = 0.1,
) -> Tensor:
    """Mark text, and the image tokens that decide the picture, at most three tenths.

    The mask is the union of three shares of a row's trained image tokens: the first ones; those with the highest
    entropy gradient |H_t − H_(t−1)| along the raster; and those least similar to the group's other pictures, by
    mean cosine of the code vectors at the same position. A share is rounded to whole tokens; of equals the earlier
    wins.
    codes: (B, N, D) as for `stage_weights`.
    entropy: (B, T) nats.
    mask, is_image: (B, T) bool. Returns (B, T) bool.
    Any share at 1 marks every token.
    Raises ValueError for shares outside 0..1 or all 0, a row with more than N image tokens, or rows not in whole
    groups.
    Group critical-token policy optimisation (arXiv 2509.22485). Its code takes the entropy gradient in two
    dimensions after smoothing, and makes the three shares disjoint.
    """
    fracs = {"first": first_frac, "entropy_gradient": entropy_gradient_frac, "dissimilar": dissimilar_frac}
    for name, frac in fracs.items():
        if not 0 <= frac <= 1:
            raise ValueError(f"{name}_frac={frac}: it is a share of a picture's tokens, 0 to 1.")
    if not any(fracs.values()):
        raise ValueError("all three shares are 0: no image token would be trained. Set mask to the text, or raise one.")
    _check_groups(codes, is_image, group_size)
    check_token_axes(mask, is_image, entropy=entropy)
    trained = mask & is_image
    all_PGG = torch.ones(len(codes) // group_size, group_size, group_size, dtype=torch.bool, device=codes.device)
    similarity_BN, compared_BN = _similarity(codes, mask, is_image, all_PGG)
    change = F.pad((entropy[:, 1:] - entropy[:, :-1]).detach().abs(), (1, 0))
    change = change.masked_fill(~F.pad(trained[:, 1:] & trained[:, :-1], (1, 0)), 0.0)
    scores = {
        "first": -torch.arange(mask.shape[1], device=mask.device).expand(mask.shape),
        "entropy_gradient": change,
        "dissimilar": -_on_token_axis(similarity_BN.masked_fill(~compared_BN, 1.0), is_image, 1.0),
    }
    chosen = ~is_image
    for name, score in scores.items():
        chosen = chosen | _highest(score.float(), trained, fracs[name])
    return chosen


def entropy_guided_mask(
    entropy: Tensor, mask: Tensor, is_image: Tensor, *, text_quantile: float = 0.2, image_quantile: float = 0.2
) -> Tensor:
    """Mark all tokens but those of low entropy in their own row and modality.

    entropy: (B, T) nats.
    mask, is_image: (B, T) bool. Only trained tokens are ranked; the others are True. Returns (B, T) bool.
    text_quantile, image_quantile: in [0, 1), share of tokens to skip. 0 skips none; equal entropies are not skipped
        either.
    Raises ValueError for a quantile out of range.
    EG-GRPO (arXiv 2604.02355). It multiplies the advantage by the mask, so that KL still holds the skipped tokens.
    Its entropy bonus for the upper half is not implemented here.
    """
    check_token_axes(mask, is_image, entropy=entropy)
    chosen = torch.ones_like(mask)
    for name, segment, quantile in (
        ("text", mask & ~is_image, text_quantile),
        ("image", mask & is_image, image_quantile),
    ):
        if not 0 <= quantile < 1:
            raise ValueError(f"{name}_quantile={quantile}: it is the share of tokens to skip, in [0, 1). 0 skips none.")
        ranked = entropy.detach().masked_fill(~segment, torch.inf).sort(1).values
        num_skipped = (quantile * segment.sum(1, keepdim=True)).long()
        chosen = chosen & ~(segment & (entropy.detach() < ranked.gather(1, num_skipped)))
    return chosen


def guidance_contrast_weights(
    cond_log_probs: Tensor, uncond_log_probs: Tensor, mask: Tensor, is_image: Tensor
) -> Tensor:
    """Weight image tokens by how much the prompt changes their log-prob.

    The weight is |log π(token | prompt) − log π(token | no prompt)|, divided by its mean over the row's picture.
    cond_log_probs, uncond_log_probs: (B, T) nats of the sampled tokens in the two branches of guidance.
    mask, is_image: (B, T) bool. Returns (B, T) float32.
    The weight is 1 for text and untrained tokens, and throughout where all gaps of a row are equal or 0. The mean
    over a row's trained image tokens is 1, so that the image term keeps its size.
    Guidance contrastive policy optimisation (arXiv 2605.29198). Its code ranks an estimate of the KL instead.
    """
    check_token_axes(mask, is_image, cond_log_probs=cond_log_probs, uncond_log_probs=uncond_log_probs)
    trained = mask & is_image
    # Filled before the subtraction: a forced or padded position may hold -inf in both.
    cond, uncond = (lp.detach().float().masked_fill(~trained, 0.0) for lp in (cond_log_probs, uncond_log_probs))
    gap = (cond - uncond).abs()
    mean = gap.sum(1, keepdim=True) / trained.sum(1, keepdim=True).clamp(min=1)
    return torch.where(trained & (mean > 0), gap / mean.masked_fill(mean == 0, 1.0), 1.0)


def _check_groups(codes: Tensor, is_image: Tensor, group_size: int) -> None:
    """Raise ValueError unless codes belong to whole groups and cover all image tokens."""
    if group_size < 2 or codes.ndim != 3 or codes.shape[0] != is_image.shape[0] or codes.shape[0] % group_size:
        raise ValueError(
            f"codes are {tuple(codes.shape)} and is_image {tuple(is_image.shape)} with group_size={group_size}: pictures "
            "of one prompt are compared, which needs (B, N, D) codes of whole groups of at least 2."
        )
    if bool((is_image.sum(1) > codes.shape[1]).any()):
        raise ValueError(
            f"a row has {int(is_image.sum(1).max())} image tokens and codes holds {codes.shape[1]}: give the code "
            "vectors of every image token of the row, in order."
        )


def _similarity(codes: Tensor, mask: Tensor, is_image: Tensor, compare_PGG: Tensor) -> tuple[Tensor, Tensor]:
    """Average the cosine with compared rows of the group at the same position, (B, N).

    Also returns where there was any row to compare with, (B, N) bool.
    """
    group_size = compare_PGG.shape[1]
    usable_PGN = _on_image_axis(mask, is_image, codes.shape[1]).reshape(-1, group_size, codes.shape[1])
    unit_PGND = F.normalize(codes.detach().float(), dim=-1).reshape(-1, group_size, *codes.shape[1:])
    different_PGG = compare_PGG & ~torch.eye(group_size, dtype=torch.bool, device=codes.device)
    pairs_PGGN = different_PGG[..., None] & usable_PGN[:, :, None] & usable_PGN[:, None, :]
    cosine_PGGN = torch.einsum("pgnd,phnd->pghn", unit_PGND, unit_PGND)
    num_PGN = pairs_PGGN.sum(2)
    mean_PGN = cosine_PGGN.masked_fill(~pairs_PGGN, 0.0).sum(2) / num_PGN.clamp(min=1)
    return mean_PGN.flatten(0, 1), (num_PGN > 0).flatten(0, 1)


def _present(is_image: Tensor, num_positions: int) -> Tensor:
    """Mark the positions (B, N) that hold an image token."""
    return torch.arange(num_positions, device=is_image.device) < is_image.sum(1, keepdim=True)


def _on_image_axis(values_BT: Tensor, is_image: Tensor, num_positions: int) -> Tensor:
    """Move a mask to each row's image tokens in order, (B, N); False beyond them."""
    out = torch.zeros(len(values_BT), num_positions, dtype=torch.bool, device=values_BT.device)
    out[_present(is_image, num_positions)] = values_BT[is_image]
    return out


def _on_token_axis(values_BN: Tensor, is_image: Tensor, elsewhere: float) -> Tensor:
    """Move values of image tokens to the token axis; `elsewhere` for other tokens."""
    out = torch.full(is_image.shape, elsewhere, dtype=values_BN.dtype, device=values_BN.device)
    out[is_image] = values_BN[_present(is_image, values_BN.shape[1])]
    return out


def _highest(score: Tensor, segment: Tensor, frac: float) -> Tensor:
    """Mark the share `frac` of each segment with the highest scores.

    The share is rounded to whole tokens; of equal scores the earlier token wins.
    """
    order = score.masked_fill(~segment, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    return segment & (rank < (frac * segment.sum(1, keepdim=True)).round())
