"""The rollout store: rollouts are sampled once, judged and learned from often."""

from thinkdraw.rollouts.files import DamagedError
from thinkdraw.rollouts.scores import Judge
from thinkdraw.rollouts.shards import StoredShard
from thinkdraw.rollouts.store import RolloutStore, StoredGroups

__all__ = ["RolloutStore", "StoredShard", "StoredGroups", "Judge", "DamagedError"]
