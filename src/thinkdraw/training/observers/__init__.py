"""What watches a run without changing it: trackers, and a user's callbacks."""

from thinkdraw.training.observers.callbacks import Callbacks
from thinkdraw.training.observers.trackers import Trackers

__all__ = ["Callbacks", "Trackers"]
