"""Choosing at test time among what a policy draws. best_of_n: draw N, keep what a reward likes best. drawn_once: remembers candidates."""

from .best_of_n import BestOfN
from .drawn_once import DrawnOnce

__all__ = ["BestOfN", "DrawnOnce"]
