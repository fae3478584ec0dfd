"""Search at test time among the pictures that a policy draws.

best_of_n: draw N pictures and return the one with the highest reward.
cached_drawer: draw each picture once, so that several rewards choose among the same candidates.
"""

from .best_of_n import BestOfN
from .cached_drawer import CachedDrawer

__all__ = ["BestOfN", "CachedDrawer"]
