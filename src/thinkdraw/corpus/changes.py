"""Finds what has changed in a corpus's source since the teacher saw it.

New items come last; changed ones are asked about again. A picture has changed if its content is another. To tell that,
it is read only where the size, times or inode of its file changed.
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


def picture_stamp(source: Source, item: Item) -> str:
    """Return a text that changes with the item's picture, without reading it.

    "" where that is not possible.
    """
    try:
        if isinstance(source, FolderSource):
            return stamp_of(source.path / item.ref) or ""
        if isinstance(source, WebdatasetSource):
            return stamp_of(Path(item.ref[0])) or ""
    except OSError:
        return ""
    return source.fingerprint() if isinstance(source, DatasetSource) else ""


def update_queue(queue: Queue, source: Source, where: Path) -> None:
    """Bring the queue to what the source holds now, and log what changed.

    where: the corpus's folder. Raises HeldError, and changes nothing, if items of the queue are missing in the source.
    """
    if isinstance(source, LabSource):  # its items follow from the configuration, which may not change
        return
    known = dict(_with_keys(queue.items()))
    new: list[Item] = []
    changed: list[Item] = []
    counts: Counter[str] = Counter()
    for key, item in _with_keys(source.items(counts)):
        before = known.pop(key, None)
        if before is None:
            new.append(item)
        elif _has_changed(queue, source, before, now := queue.as_stored(replace(item, index=before.index))):
            changed.append(now)
    if known:
        raise HeldError(
            f"the source of {where} lacks {len(known)} items that it had before: {_names(known.values())}. Put them back, or "
            "choose another out=."
        )
    for item in changed:
        queue.ask_again(item)
    queue.append(new)
    queue.set_source_counts(counts)
    if changed:
        logger.warning("%d items have changed and are asked about again: %s", len(changed), _names(changed))
    if new:
        logger.warning("%d new items come last: %s", len(new), _names(new))


def check_picture_unchanged(queue: Queue, item: Item, picture: bytes | None) -> None:
    """Raise HeldError if the picture is not the one that the teacher saw."""
    _, digest = queue.recorded_picture(item.index)
    if digest and picture is not None and content_digest([picture]) != digest:
        raise HeldError(
            f"{item.id} changed while the teacher wrote about it. Run the same command again: it will ask about it again."
        )


def _with_keys(items: Iterable[Item]) -> Iterator[tuple[tuple[str, int], Item]]:
    """Yield (key, item).

    The key is (id, how often that id came before), since ids may repeat.
    """
    times: Counter[str] = Counter()
    for item in items:
        yield (item.id, times[item.id]), item
        times[item.id] += 1


def _has_changed(queue: Queue, source: Source, before: Item, now: Item) -> bool:
    """Say whether the item's text or picture changed.

    Where only the picture's location changed, the queue gets the new one.
    """
    if (before.prompt, before.has_picture) != (now.prompt, now.has_picture):
        return True
    stamp, digest = queue.recorded_picture(now.index)
    if digest and (not stamp or stamp != picture_stamp(source, now) or before.ref != now.ref):
        try:
            if content_digest([source.picture(now)]) != digest:
                return True
        except OSError:
            return True  # asking about it again will report why it cannot be read
        queue.record_picture(now.index, picture_stamp(source, now), digest)
    if before.ref != now.ref:
        queue.update_ref(now)
    return False


def _names(items: Iterable[Item]) -> str:
    named = [item.id for item in items]
    return ", ".join(named[:_NAMED]) + (" …" if len(named) > _NAMED else "")
