"""How a rollout's advantage is spread over its tokens: the token weights of `objectives.token_weights` for whole groups."""

import dataclasses
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thinkdraw.objectives import (
    critical_mask,
    entropy_guided_mask,
    guidance_contrast_weights,
    stage_weights,
)
from thinkdraw.types import Policy, Rollouts, Scored

TokenWeights = Literal["stage", "critical", "entropy_guided", "guidance_contrast"]


@dataclass(frozen=True)
class TokenCredit:
    """(B, T) float32 each: what a token's advantage and its KL term are multiplied by."""

    advantage: Tensor
    kl: Tensor

    def rows(self, rows: Tensor, length: int) -> "TokenCredit":
        return TokenCredit(self.advantage[rows, :length], self.kl[rows, :length])


def token_credit(
    name: TokenWeights, policy: Policy, rollouts: Rollouts, advantages: Tensor, trained: Tensor, micro_rows: int
) -> TokenCredit:
    """Of whole groups, before they are split. advantages: (B,). trained: (B, T) bool, the mask without rows that leave
    the loss. `critical` and `entropy_guided` cost one more forward pass, `guidance_contrast` two."""
    is_image = rollouts.is_image
    if name == "stage":
        codes = policy.code_vectors(rollouts.image_tokens())
        found = stage_weights(codes, advantages, trained, is_image, rollouts.group_size)
        return TokenCredit(found.advantage, found.kl)
    if name == "guidance_contrast":
        with_prompt, without = (_scored(policy, _guided(rollouts, scale), micro_rows).log_probs for scale in (1.0, 0.0))
        weights = guidance_contrast_weights(with_prompt, without, trained, is_image)
    elif name == "critical":
        codes, entropy = policy.code_vectors(rollouts.image_tokens()), _scored(policy, rollouts, micro_rows).entropy
        weights = critical_mask(codes, entropy, trained, is_image, rollouts.group_size).float()
    else:
        weights = entropy_guided_mask(_scored(policy, rollouts, micro_rows).entropy, trained, is_image).float()
    return TokenCredit(weights, torch.ones_like(weights))


def _guided(rollouts: Rollouts, scale: float) -> Rollouts:
    """The same tokens as if sampled at another guidance scale: at 0 the picture does not see its prompt."""
    sampling = rollouts.sampling.model_copy(update={"guidance_scale": scale, "top_k": None, "top_p": None})
    return dataclasses.replace(rollouts, sampling=sampling, kept=None)


@torch.no_grad()
def _scored(policy: Policy, rollouts: Rollouts, micro_rows: int) -> Scored:
    """Log-probs and entropies (B, T) of the policy as it is."""
    log_probs, entropy = (torch.zeros(rollouts.tokens.shape, device=policy.device) for _ in range(2))
    for rows in torch.arange(len(rollouts)).split(micro_rows):
        micro = rollouts.select(rows)
        scored, length = policy.log_probs(micro), micro.tokens.shape[1]
        log_probs[rows, :length], entropy[rows, :length] = scored.log_probs, scored.entropy
    return Scored(log_probs, entropy)
