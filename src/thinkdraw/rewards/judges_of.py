"""The judges that a reward asks, with their names, revisions and failures.

Only this module looks for the optional attributes of a judge (`types.Judge`), of which a judge may have some or none.
"""

from collections import Counter
from collections.abc import Iterator

from torch import nn

from thinkdraw.types import Reward, Rollouts

_DEPTH = 8  # judges are searched for this many attributes deep


class AnyJudge:
    """Anything that a reward asks, as a `types.Judge` with every attribute filled in.

    target: a judge, shipped or a user's, or any other object in a user's reward.
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
        """The revision as older versions wrote it; today's where the two are the same."""
        former = getattr(self.target, "former_revision", None)
        return former if isinstance(former, str) else self.revision

    @property
    def elsewhere(self) -> bool:
        return getattr(self.target, "elsewhere", False) is True

    @property
    def failures(self) -> Counter[str]:
        """Reason for no verdict → count so far.

        A user's own reward may call the attribute `problems`.
        """
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
    target: object, path: str, depth: int, seen: set[int], within_revisions: bool
) -> Iterator[tuple[str, AnyJudge]]:
    """Yield the object as a judge, then whatever its attributes hold.

    seen: ids of the objects that have been yielded.
    """
    if id(target) in seen or depth == 0 or isinstance(target, type | Rollouts):
        return
    seen.add(id(target))
    judge = AnyJudge(target)
    yield path, judge
    if isinstance(target, nn.Module) or (judge.revision and not within_revisions):
        return
    if isinstance(target, dict):
        attributes = {str(key): value for key, value in target.items()}
    elif isinstance(target, list | tuple):
        attributes = {str(index): value for index, value in enumerate(target)}
    else:
        attributes = getattr(target, "__dict__", {})
    for name, value in sorted(attributes.items()):
        yield from _with_attributes(value, f"{path}.{name}", depth - 1, seen, within_revisions)


def failure_summary(reward: Reward, notes: Counter[str] | None = None) -> str:
    """Say in one line why judges gave no verdict so far; "" if all did.

    Each judge's two most frequent reasons are named, with their counts. notes: those of the reward's `Verdicts`, used
    where no judge counts its failures.
    """
    counts = [(judge.name, judge.failures) for _, judge in judges_of(reward) if judge.failures]
    if not counts and notes:
        counts = [(reward.name, notes)]
    return "; ".join(f"{name}: {_two_most_frequent(reasons)}" for name, reasons in counts)


def _two_most_frequent(reasons: Counter[str]) -> str:
    return ", ".join(f"{' '.join(str(reason).split())} ({count})" for reason, count in reasons.most_common(2))
