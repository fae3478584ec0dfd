"""Objectives: pure functions from tensors to a loss, on torch alone.

The one token axis (B, T) holds thought and image tokens; `is_image` tells them apart and `mask` says which are trained.
Text and image tokens get separate means and weights: 576 image tokens would otherwise drown a 60-token thought.
Denominators are passed as global `SegmentCounts`, so that any split of a batch gives the same gradient.

counts: the denominators · sft: supervised loss · advantages: rewards to advantages · policy_gradient: the GRPO family ·
kl: distance to the reference · entropy: entropy and its controller.
"""

from functools import partial

from .advantages import Advantages, group_normalized, leave_one_out
from .counts import ModalityMeans, SegmentCounts, count_segments, masked_modality_mean
from .entropy import AdaptiveEntropy, token_entropy
from .kl import kl_k1, kl_k2, kl_k3
from .policy_gradient import PolicyLoss, clipped_loss
from .sft import segment_loss

POLICY_LOSSES = {
    "grpo": partial(clipped_loss, variant="grpo"),
    "dapo": partial(clipped_loss, variant="dapo"),
    "bnpo": partial(clipped_loss, variant="bnpo"),
    "dr_grpo": partial(clipped_loss, variant="dr_grpo"),
    "gspo": partial(clipped_loss, variant="gspo"),
    "cispo": partial(clipped_loss, variant="cispo"),
}

__all__ = [
    "POLICY_LOSSES",
    "AdaptiveEntropy",
    "Advantages",
    "ModalityMeans",
    "PolicyLoss",
    "SegmentCounts",
    "clipped_loss",
    "count_segments",
    "group_normalized",
    "kl_k1",
    "kl_k2",
    "kl_k3",
    "leave_one_out",
    "masked_modality_mean",
    "segment_loss",
    "token_entropy",
]
