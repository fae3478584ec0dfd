"""Callbacks: a class of the user's own that is told what a run does.

    callbacks: [my_pkg.mine:MyCallback]

It is made without arguments, and has one of these methods or more; `run` is the `Run`, with its policy, step and path:

    on_start(run)                  before the first step, also of a run that goes on
    on_step(run, metrics, batch)   after each row of metrics.jsonl. batch: the phase's rollouts with rewards and pictures, or
                                   None where a recipe has none
    on_save(run, folder)           a checkpoint is complete
    on_end(run)                    after the last checkpoint of a run that came to its end

With several processes the main one alone calls them, and `batch` has its share of the groups. An error in a callback ends
the run in every process, with a line that names it, as an error in a reward does: what it had to do was not done.
"""

import difflib
import inspect
from collections.abc import Sequence

from thinkdraw.errors import OwnCodeError, UserError
from thinkdraw.runtime.registry import METHODS, make, own_code
from thinkdraw.training.world import World

EVENTS = METHODS["callback"]


class Callbacks:
    """The callbacks of a run, in the order of its configuration."""

    def __init__(self, names: Sequence[str], world: World) -> None:
        """Make the callbacks. Raises UserError for a name that leads to none."""
        self.world = world
        self._callbacks = [(name, _opened(name)) for name in names]

    def listens(self, event: str) -> bool:
        """Whether any of them has a method for this event."""
        return any(hasattr(callback, event) for _, callback in self._callbacks)

    def call(self, event: str, *arguments: object) -> None:
        """Call the event's method of each callback; all processes come here together.

        Raises OwnCodeError, in every process, for an error in the main one's callback.
        """
        if not self.listens(event):
            return
        failure = ""
        if self.world.is_main:
            try:
                for name, callback in self._callbacks:
                    if method := getattr(callback, event, None):
                        with own_code(f"callback {name}, {event},"):
                            method(*arguments)
            except UserError as error:
                failure = str(error)
        if failure := self.world.broadcast(failure):
            raise OwnCodeError(failure)


def _opened(name: str) -> object:
    callback = make("callback", {}, name, {})
    events = [member for member in dir(callback) if member.startswith("on_")]
    if unknown := [event for event in events if event not in EVENTS]:
        near = difflib.get_close_matches(unknown[0], EVENTS, n=1) or [EVENTS[0]]
        raise UserError(
            f"callback {name} has {unknown[0]}, which nothing calls. Did you mean {near[0]}? Events are {', '.join(EVENTS)}."
        )
    if not events:
        kind = type(callback).__name__ if not inspect.isclass(callback) else callback.__name__
        raise UserError(
            f"callback {name} ({kind}) has none of {', '.join(EVENTS)}: nothing would ever call it. Add one."
        )
    return callback
