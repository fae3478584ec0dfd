"""Choosing at test time among what a policy draws. best_of_n: draw N, keep what a reward likes best. cached_drawer: draws each once."""

from .best_of_n import BestOfN
from .cached_drawer import CachedDrawer

__all__ = ["BestOfN", "CachedDrawer"]
