"""Rollouts that are kept: sampled once, judged many times, learned from in many ways."""

from thinkdraw.rollouts.files import DamagedError
from thinkdraw.rollouts.scores import Judge
from thinkdraw.rollouts.shards import StoredShard
from thinkdraw.rollouts.store import RolloutStore, StoredGroups

__all__ = ["RolloutStore", "StoredShard", "StoredGroups", "Judge", "DamagedError"]
