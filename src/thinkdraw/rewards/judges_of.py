"""The judges that a reward asks, with their names, revisions and failures.

Only this module looks for the optional attributes of a judge (`types.Judge`), of which ours and users' have some.
"""

from collections import Counter
from collections.abc import Iterator

from torch import nn

from thinkdraw.types import Reward, Rollouts

_DEPTH = 8  # judges are searched for this many attributes deep


class AnyJudge:
    """Anything that a reward asks, as a `types.Judge`: what it does not declare is filled in.

    target: a judge, ours or a user's, or any other object in a user's reward.
    """

    def __init__(self, target: object) -> None:
        self.target = target

    @property
    def name(self) -> str:
        return str(getattr(self.target, "name", type(self.target).__name__))

    @property
    def revision(self) -> str | None:
        revision = None if isinstance(self.target, nn.Module) else getattr(self.target, "revision", None)
        return revision if isinstance(revision, str) and revision else None

    @property
    def former_revision(self) -> str | None:
        """Its revision as older versions wrote it, where that differs."""
        former = getattr(self.target, "former_revision", None)
        return former if isinstance(former, str) else self.revision

    @property
    def elsewhere(self) -> bool:
        return getattr(self.target, "elsewhere", False) is True

    @property
    def failures(self) -> Counter[str]:
        """Reason for no verdict → count so far; a user's own reward may call them `problems`."""
        counters = (getattr(self.target, name, None) for name in ("failures", "problems"))
        return sum((counter for counter in counters if isinstance(counter, Counter)), Counter())


def judges_of(reward: Reward, *, within_revisions: bool = True) -> Iterator[tuple[str, AnyJudge]]:
    """Yield (path of attributes, judge) of all that the reward asks, each once.

    A path is ".questioner" or ".rewards.facts.detector". A judge is followed by the contents of its attributes, because a
    user's own judge may just hold a network.
    within_revisions: also look inside a judge that has a revision, which stands for all that is in it.
    """
    seen: set[int] = set()
    for role, judge in reward.judges.items():
        path = f".{role}" if role else ""
        yield from _with_attributes(judge, path, _DEPTH - path.count("."), seen, within_revisions)


def _with_attributes(
    thing: object, path: str, depth: int, seen: set[int], within_revisions: bool
) -> Iterator[tuple[str, AnyJudge]]:
    """Yield the thing as a judge, then what is in its attributes.

    seen: ids of the objects that have been yielded.
    """
    if id(thing) in seen or depth == 0 or isinstance(thing, type | Rollouts):
        return
    seen.add(id(thing))
    judge = AnyJudge(thing)
    yield path, judge
    if isinstance(thing, nn.Module) or (judge.revision and not within_revisions):
        return
    if isinstance(thing, dict):
        attributes = {str(key): value for key, value in thing.items()}
    elif isinstance(thing, list | tuple):
        attributes = {str(index): value for index, value in enumerate(thing)}
    else:
        attributes = getattr(thing, "__dict__", {})
    for name, value in sorted(attributes.items()):
        yield from _with_attributes(value, f"{path}.{name}", depth - 1, seen, within_revisions)


def failure_summary(reward: Reward, notes: Counter[str] | None = None) -> str:
    """Say in one line why judges gave no verdict so far, or "" if all did.

    Each judge shows its two most frequent reasons with their counts.
    notes: of the reward's `Verdicts`, used where no judge counts its failures.
    """
    counts = [(judge.name, judge.failures) for _, judge in judges_of(reward) if judge.failures]
    if not counts and notes:
        counts = [(reward.name, notes)]
    return "; ".join(f"{name}: {_two_most_frequent(reasons)}" for name, reasons in counts)


def _two_most_frequent(reasons: Counter[str]) -> str:
    return ", ".join(f"{' '.join(str(reason).split())} ({count})" for reason, count in reasons.most_common(2))
