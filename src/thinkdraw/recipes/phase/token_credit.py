"""How a rollout's advantage is spread over its tokens: what the formulas in `objectives/token_weights.py` are given."""

import dataclasses
from typing import Literal

import torch

from thinkdraw.objectives import critical_mask, entropy_guided_mask, guidance_contrast_weights, stage_weights
from thinkdraw.objectives.token_weights import StageWeights
from thinkdraw.training.batch import Batch, parts_of
from thinkdraw.types import Policy, Rollouts, TokenLogProbs

TokenWeights = Literal["stage", "critical", "entropy_guided", "guidance_contrast"]


def token_credit(name: TokenWeights, policy: Policy, batch: Batch, micro_rows: int) -> StageWeights:
    """What each token's advantage and KL term are multiplied by.

    batch: all of this process's groups with their advantages, for some weights compare the rollouts of a group.
    `critical` and `entropy_guided` cost one more forward pass, `guidance_contrast` two.
    """
    rollouts, trained, advantages = batch.rollouts, batch.trained_mask(), batch.advantages
    assert advantages is not None
    is_image = rollouts.is_image
    if name == "stage":
        codes = policy.code_vectors(rollouts.all_image_tokens())
        return stage_weights(codes, advantages.values, trained, is_image, rollouts.group_size)
    if name == "guidance_contrast":
        with_prompt, without = (
            batched_log_probs(policy, _guided(rollouts, scale), micro_rows).log_probs for scale in (1.0, 0.0)
        )
        weights = guidance_contrast_weights(with_prompt, without, trained, is_image)
    elif name == "critical":
        codes, entropy = (
            policy.code_vectors(rollouts.all_image_tokens()),
            batched_log_probs(policy, rollouts, micro_rows).entropy,
        )
        weights = critical_mask(codes, entropy, trained, is_image, rollouts.group_size).float()
    else:
        weights = entropy_guided_mask(
            batched_log_probs(policy, rollouts, micro_rows).entropy, trained, is_image
        ).float()
    return StageWeights(weights, torch.ones_like(weights))


def _guided(rollouts: Rollouts, scale: float) -> Rollouts:
    """The same tokens, to be scored as if they were sampled at another guidance scale: at 0 without their prompt.

    `allowed`, what top-k and top-p left, is of the scale that was sampled with, and does not hold for another.
    """
    sampling = rollouts.sampling.model_copy(update={"guidance_scale": scale, "top_k": None, "top_p": None})
    return dataclasses.replace(rollouts, sampling=sampling, allowed=None)


@torch.no_grad()
def batched_log_probs(policy: Policy, rollouts: Rollouts, micro_rows: int) -> TokenLogProbs:
    """Score rollouts under the policy as it is, without gradient: log-probs and entropies (B, T)."""
    log_probs, entropy = (torch.zeros(rollouts.tokens.shape, device=policy.device) for _ in range(2))
    for rows in parts_of(torch.arange(len(rollouts)), micro_rows):
        micro = rollouts.select(rows)
        part, length = policy.log_probs(micro), micro.tokens.shape[1]
        log_probs[rows, :length], entropy[rows, :length] = part.log_probs, part.entropy
    return TokenLogProbs(log_probs, entropy)
