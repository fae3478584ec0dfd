"""How a rollout's advantage is spread over its tokens: the token weights of `objectives.token_weights` for whole groups."""

import dataclasses
from typing import Literal

import torch

from thinkdraw.objectives import critical_mask, entropy_guided_mask, guidance_contrast_weights, stage_weights
from thinkdraw.objectives.token_weights import StageWeights
from thinkdraw.training.batch import Batch
from thinkdraw.types import Policy, Rollouts, Scored

TokenWeights = Literal["stage", "critical", "entropy_guided", "guidance_contrast"]


def token_credit(name: TokenWeights, policy: Policy, batch: Batch, micro_rows: int) -> StageWeights:
    """What each token's advantage and KL term are multiplied by; of whole groups with advantages, before they are split.

    `critical` and `entropy_guided` cost one more forward pass, `guidance_contrast` two.
    """
    rollouts, trained, advantages = batch.rollouts, batch.trained_mask(), batch.advantages
    assert advantages is not None
    is_image = rollouts.is_image
    if name == "stage":
        codes = policy.code_vectors(rollouts.all_image_tokens())
        return stage_weights(codes, advantages.values, trained, is_image, rollouts.group_size)
    if name == "guidance_contrast":
        with_prompt, without = (scored(policy, _guided(rollouts, scale), micro_rows).log_probs for scale in (1.0, 0.0))
        weights = guidance_contrast_weights(with_prompt, without, trained, is_image)
    elif name == "critical":
        codes, entropy = policy.code_vectors(rollouts.all_image_tokens()), scored(policy, rollouts, micro_rows).entropy
        weights = critical_mask(codes, entropy, trained, is_image, rollouts.group_size).float()
    else:
        weights = entropy_guided_mask(scored(policy, rollouts, micro_rows).entropy, trained, is_image).float()
    return StageWeights(weights, torch.ones_like(weights))


def _guided(rollouts: Rollouts, scale: float) -> Rollouts:
    """The same tokens as if sampled at another guidance scale: at 0 the picture does not see its prompt."""
    sampling = rollouts.sampling.model_copy(update={"guidance_scale": scale, "top_k": None, "top_p": None})
    return dataclasses.replace(rollouts, sampling=sampling, kept=None)


@torch.no_grad()
def scored(policy: Policy, rollouts: Rollouts, micro_rows: int) -> Scored:
    """Log-probs and entropies (B, T) of the policy as it is."""
    log_probs, entropy = (torch.zeros(rollouts.tokens.shape, device=policy.device) for _ in range(2))
    for rows in torch.arange(len(rollouts)).split(micro_rows):
        micro = rollouts.select(rows)
        part, length = policy.log_probs(micro), micro.tokens.shape[1]
        log_probs[rows, :length], entropy[rows, :length] = part.log_probs, part.entropy
    return Scored(log_probs, entropy)
