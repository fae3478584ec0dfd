"""Token weights: how a rollout's advantage is spread over its tokens.

The formulas are in `objectives/token_weights.py`; here are the forward passes and code vectors that they need.
"""

import dataclasses
from typing import Literal

import torch

from thinkdraw.objectives import critical_mask, entropy_guided_mask, guidance_contrast_weights, stage_weights
from thinkdraw.objectives.token_weights import StageWeights
from thinkdraw.training.batch import Batch, split_rows
from thinkdraw.types import Policy, Rollouts, TokenLogProbs

TokenWeights = Literal["stage", "critical", "entropy_guided", "guidance_contrast"]


def compute_token_weights(name: TokenWeights, policy: Policy, batch: Batch, micro_rows: int) -> StageWeights:
    """Compute what each token's advantage and KL term are multiplied by, (B, T) each.

    batch: whole groups with their advantages, since some weights compare the rollouts of a group.
    `critical` and `entropy_guided` cost one extra forward pass, `guidance_contrast` two.
    """
    rollouts, trained, advantages = batch.rollouts, batch.trained_mask(), batch.advantages
    assert advantages is not None
    is_image = rollouts.is_image
    if name == "stage":
        codes = policy.code_vectors(rollouts.all_image_tokens())
        return stage_weights(codes, advantages.values, trained, is_image, rollouts.group_size)
    if name == "guidance_contrast":
        conditional, unconditional = (
            batched_log_probs(policy, _at_guidance(rollouts, scale), micro_rows).log_probs for scale in (1.0, 0.0)
        )
        weights = guidance_contrast_weights(conditional, unconditional, trained, is_image)
    elif name == "critical":
        codes = policy.code_vectors(rollouts.all_image_tokens())
        entropy = batched_log_probs(policy, rollouts, micro_rows).entropy
        weights = critical_mask(codes, entropy, trained, is_image, rollouts.group_size).float()
    else:
        weights = entropy_guided_mask(
            batched_log_probs(policy, rollouts, micro_rows).entropy, trained, is_image
        ).float()
    return StageWeights(weights, torch.ones_like(weights))


def _at_guidance(rollouts: Rollouts, scale: float) -> Rollouts:
    """Prepare the same tokens for scoring at another guidance scale.

    Scale 0 scores them without their prompt.
    `kept` is dropped: it lists what top-k and top-p left at the scale of sampling, which another scale would not leave.
    """
    sampling = rollouts.sampling.model_copy(update={"guidance_scale": scale, "top_k": None, "top_p": None})
    return dataclasses.replace(rollouts, sampling=sampling, allowed=None)


@torch.no_grad()
def batched_log_probs(policy: Policy, rollouts: Rollouts, micro_rows: int) -> TokenLogProbs:
    """Score rollouts under the present policy: log-probs and entropies, (B, T) nats.

    Without gradient.
    """
    log_probs, entropy = (torch.zeros(rollouts.tokens.shape, device=policy.device) for _ in range(2))
    for rows in split_rows(torch.arange(len(rollouts)), micro_rows):
        micro = rollouts.select(rows)
        # `select` cuts padding that none of its rows needs, so a micro-batch may have fewer columns.
        scores, length = policy.log_probs(micro), micro.tokens.shape[1]
        log_probs[rows, :length], entropy[rows, :length] = scores.log_probs, scores.entropy
    return TokenLogProbs(log_probs, entropy)
