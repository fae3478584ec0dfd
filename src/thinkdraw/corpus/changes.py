"""What has changed in a corpus's source since it was asked about: new items come last, changed ones are asked about again.

A picture counts as changed where its content is another: it is read for that only where size, times or inode of its file are.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from thinkdraw.corpus.queue import Queue
from thinkdraw.corpus.sources import DatasetSource, FolderSource, Item, LabSource, Source, WebdatasetSource
from thinkdraw.errors import HeldError
from thinkdraw.runtime.inputs.hashing import content_digest, stamp_of

logger = logging.getLogger(__name__)
_NAMED = 3


def stamp_in(source: Source, item: Item) -> str:
    """What changes with the item's picture, told without reading it; "" where that cannot be told."""
    try:
        if isinstance(source, FolderSource):
            return stamp_of(source.path / item.ref) or ""
        if isinstance(source, WebdatasetSource):
            return stamp_of(Path(item.ref[0])) or ""
    except OSError:
        return ""
    return source.fingerprint() if isinstance(source, DatasetSource) else ""


def take_up_changes(queue: Queue, source: Source, where: Path) -> None:
    """Bring the queue to what the source holds now, and say what that was.

    where: the corpus's folder. Raises HeldError, with nothing changed, for items that are no longer there.
    """
    if isinstance(source, LabSource):  # follows from the configuration
        return
    known = dict(_keyed(queue.items()))
    new: list[Item] = []
    changed: list[Item] = []
    counts: Counter[str] = Counter()
    for key, item in _keyed(source.items(counts)):
        before = known.pop(key, None)
        if before is None:
            new.append(item)
        elif _has_changed(queue, source, before, now := queue.as_kept(replace(item, index=before.index))):
            changed.append(now)
    if known:
        raise HeldError(
            f"the source of {where} lacks {len(known)} items that it had: {_names(known.values())}. Put them back, or choose "
            "another out=."
        )
    for item in changed:
        queue.ask_again(item)
    queue.append(new)
    queue.keep_source_counts(counts)
    if changed:
        logger.warning("%d items have changed and are asked about again: %s", len(changed), _names(changed))
    if new:
        logger.warning("%d new items come last: %s", len(new), _names(new))


def refuse_other_picture(queue: Queue, item: Item, picture: bytes | None) -> None:
    """Raise HeldError for a picture that is no longer the one that was asked about."""
    _, digest = queue.seen(item.index)
    if digest and picture is not None and content_digest([picture]) != digest:
        raise HeldError(
            f"{item.id} has changed while it was written about. Run the same command again: it is asked about again."
        )


def _keyed(items: Iterable[Item]) -> Iterator[tuple[tuple[str, int], Item]]:
    """(id and which one of that id, item)."""
    times: Counter[str] = Counter()
    for item in items:
        yield (item.id, times[item.id]), item
        times[item.id] += 1


def _has_changed(queue: Queue, source: Source, before: Item, now: Item) -> bool:
    """Whether the item's text or picture is another; where only the picture's place is, that is kept."""
    if (before.prompt, before.has_picture) != (now.prompt, now.has_picture):
        return True
    stamp, digest = queue.seen(now.index)
    if digest and (not stamp or stamp != stamp_in(source, now) or before.ref != now.ref):
        try:
            if content_digest([source.picture(now)]) != digest:
                return True
        except OSError:
            return True  # the next who asks says why
        queue.saw(now.index, stamp_in(source, now), digest)
    if before.ref != now.ref:
        queue.move(now)
    return False


def _names(items: Iterable[Item]) -> str:
    named = [item.id for item in items]
    return ", ".join(named[:_NAMED]) + (" …" if len(named) > _NAMED else "")
