"""Objectives: pure functions from tensors to a loss, on torch alone.

One token axis (B, T) holds thought and image tokens. `is_image` tells them apart, and `mask` marks the trained
ones.
Text and image tokens have separate means and weights: otherwise 576 image tokens would drown a 60-token thought.
Denominators are passed as global `SegmentCounts`, so that any split of a batch gives the same gradient.

counts: the denominators.
sft: supervised loss.
advantages, several_rewards: from rewards to advantages.
token_weights: credit of single tokens.
policy_gradient: the GRPO family.
kl: distance to the reference.
entropy: entropy and its controller.
preference: the DPO family and REBEL.
pairs: which rollouts to learn from.
"""

from collections.abc import Callable
from functools import partial

from thinkdraw.objectives.advantages import (
    Advantages,
    BatchMoments,
    batch_moments,
    batch_normalized,
    group_normalized,
    leave_one_out,
    reinforce_plus_plus,
)
from thinkdraw.objectives.counts import ModalityMeans, SegmentCounts, count_segments, masked_modality_mean
from thinkdraw.objectives.entropy import AdaptiveEntropy, token_entropy
from thinkdraw.objectives.kl import kl_k1, kl_k2, kl_k3
from thinkdraw.objectives.pairs import Pairs, accepted_rows, pairs_from_rewards
from thinkdraw.objectives.policy_gradient import PolicyLoss, clipped_loss
from thinkdraw.objectives.preference import PreferenceLoss, dpo_loss, rebel_loss
from thinkdraw.objectives.several_rewards import combine
from thinkdraw.objectives.sft import segment_loss
from thinkdraw.objectives.token_weights import (
    StageWeights,
    critical_mask,
    entropy_guided_mask,
    guidance_contrast_weights,
    stage_entropy_reward,
    stage_weights,
)

ADVANTAGES: dict[str, Callable[..., Advantages]] = {
    "group": group_normalized,
    "dr_grpo": partial(group_normalized, scale_by_std=False),
    "rloo": leave_one_out,
    "reinforce++": reinforce_plus_plus,
    "reinforce++_baseline": partial(reinforce_plus_plus, baseline=True),
}

TOKEN_WEIGHTS = {
    "stage": stage_weights,
    "critical": critical_mask,
    "entropy_guided": entropy_guided_mask,
    "guidance_contrast": guidance_contrast_weights,
}

POLICY_LOSSES = {
    "grpo": partial(clipped_loss, variant="grpo"),
    "dapo": partial(clipped_loss, variant="dapo"),
    "bnpo": partial(clipped_loss, variant="bnpo"),
    "dr_grpo": partial(clipped_loss, variant="dr_grpo"),
    "gspo": partial(clipped_loss, variant="gspo"),
    "cispo": partial(clipped_loss, variant="cispo"),
}

PREFERENCE_LOSSES = {
    "sigmoid": partial(dpo_loss, loss_type="sigmoid"),
    "hinge": partial(dpo_loss, loss_type="hinge"),
    "ipo": partial(dpo_loss, loss_type="ipo"),
    "sigmoid_norm": partial(dpo_loss, loss_type="sigmoid_norm"),
    "rebel": rebel_loss,
}

__all__ = [
    "ADVANTAGES",
    "POLICY_LOSSES",
    "PREFERENCE_LOSSES",
    "TOKEN_WEIGHTS",
    "AdaptiveEntropy",
    "Advantages",
    "BatchMoments",
    "ModalityMeans",
    "Pairs",
    "PolicyLoss",
    "PreferenceLoss",
    "SegmentCounts",
    "StageWeights",
    "batch_moments",
    "batch_normalized",
    "clipped_loss",
    "combine",
    "count_segments",
    "critical_mask",
    "dpo_loss",
    "entropy_guided_mask",
    "group_normalized",
    "guidance_contrast_weights",
    "accepted_rows",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "leave_one_out",
    "masked_modality_mean",
    "pairs_from_rewards",
    "rebel_loss",
    "reinforce_plus_plus",
    "segment_loss",
    "stage_entropy_reward",
    "stage_weights",
    "token_entropy",
]
