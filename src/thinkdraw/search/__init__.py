"""Choosing at test time among what a policy draws. best_of_n: draw N, keep what a reward likes best."""

from .best_of_n import BestOfN

__all__ = ["BestOfN"]
