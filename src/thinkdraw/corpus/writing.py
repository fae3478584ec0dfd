"""From a configuration to a corpus on disk: fill the queue, ask, filter, write. Each step goes on where a stopped run left it."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thinkdraw.config import dump_config, save_config
from thinkdraw.corpus.card import CorpusTotals, card
from thinkdraw.corpus.changes import refuse_other_picture, take_up_changes
from thinkdraw.corpus.filters.filtering import Dropped, filter_contradictions, filter_scores, filter_texts
from thinkdraw.corpus.queue import FILTERED, REJECTED, Queue
from thinkdraw.corpus.settings import CorpusSettings
from thinkdraw.corpus.shards import row_for, write_shards
from thinkdraw.corpus.sources import Item
from thinkdraw.corpus.teachers.answers import Answer
from thinkdraw.corpus.teachers.asking import Status, ask_all
from thinkdraw.corpus.teachers.teachers import Teacher
from thinkdraw.data.tables import counts_line, print_counts
from thinkdraw.errors import UserError, printable
from thinkdraw.picture_reader import read_picture
from thinkdraw.runtime.files import atomic_directory, atomic_file, atomic_write_text, only_writer
from thinkdraw.runtime.formats import parse_yaml, read_yaml_object
from thinkdraw.runtime.json_types import JsonObject
from thinkdraw.types import Questioner, Scorer

WORK, CONFIG, CARD, DATA, REJECTED_FILE, FILTERED_FILE = (
    "work.sqlite", "corpus.yaml", "README.md", "data", "rejected.jsonl", "filtered.jsonl"
)  # fmt: skip
MAY_CHANGE = {"limits", "filters", "licence", "rows_per_shard"}  # between a stopped run and its continuation
MAY_CHANGE_OF_TEACHER = {"base_url", "concurrency", "timeout_s", "key_env", "batch", "extra_body"}
MAX_SHOWN = 4000

Draw = Callable[[Queue, Iterator[tuple[Item, JsonObject]]], None]
"""Draws and stores the pictures of answered items that have none."""


@dataclass(frozen=True)
class Helpers:
    """What the configuration names and a recipe opens; None where it names none."""

    questioner: Questioner | None = None
    scorer: Scorer | None = None
    draw: Draw | None = None


def write(
    settings: CorpusSettings, teacher: Teacher, helpers: Helpers = Helpers(), show: Callable[[Status], None] = lambda status: None
) -> Path:  # fmt: skip
    """Write the corpus and return its folder. Raises UserError; what was answered is kept and the next run goes on.

    The corpus is written, too, when the budget ends first: of the rows there are, and the card says so. Without any row
    it is an error, which says what became of the items.
    """
    _refuse_other_folder(settings.out)
    with only_writer(settings.out), _queue(settings) as queue:
        counts, source = Counter[str](), f"source {settings.source.kind}"
        if not queue.fill(settings.source.items(counts), counts):
            raise UserError(f"{source} holds nothing to write about ({counts_line('files', counts)}). Check its path.")
        print_counts(source, queue.source_counts())
        save_config(settings, settings.out / CONFIG)
        is_whole = ask_all(
            queue, settings.source, teacher, settings.limits, settings.filters.shape, show, settings.pictures
        )
        if helpers.draw:
            helpers.draw(queue, (row for row in _answered(queue) if not row[0].has_picture))
        dropped = filter_all(settings, queue, helpers)
        made = finish(settings, queue, dropped, teacher.name, is_whole)
        aside = next((reason for _, reason, _ in queue.set_aside(REJECTED)), "")
    if not made.kept:
        whys = (Counter(made.rejected) + Counter(made.filtered)).most_common(3)
        shown = "; ".join(f"{reason} ({count})" for reason, count in whys) or "the budget ended before an answer"
        first = f" The first that was set aside: {printable(aside)[:300].rstrip('.')}." if aside else ""
        raise UserError(
            f"{settings.out} has no rows: {shown}.{first} {REJECTED_FILE} and {FILTERED_FILE} there have all."
        )
    filtered = {f"left out by filters ({reason})": count for reason, count in made.filtered.items()}
    rejected = {f"set aside ({kind})": count for kind, count in made.rejected.items()}
    print_counts(f"corpus {settings.out}", {"rows": made.kept, **filtered, **rejected})
    return settings.out


@contextmanager
def _queue(settings: CorpusSettings) -> Iterator[Queue]:
    """The queue of the folder, brought to what the source holds now. One of which nothing was asked yet holds nobody.

    Raises UserError for a corpus of another configuration. A refused start leaves no trace of a new queue.
    """
    has_begun = True  # until it is looked at: another process may hold it
    try:
        with Queue(settings.out / WORK) as queue:
            if has_begun := queue.counts().requests > 0:
                _refuse_other_corpus(settings)
                take_up_changes(queue, settings.source, settings.out)
            else:
                queue.clear()
            try:
                yield queue
            finally:
                has_begun = has_begun or queue.counts().requests > 0
    except BaseException:
        if not has_begun:
            for file in (CONFIG, *(f"{WORK}{end}" for end in ("", "-wal", "-shm"))):
                (settings.out / file).unlink(missing_ok=True)
        raise


def _refuse_other_folder(out: Path) -> None:
    if out.is_dir() and not (out / CONFIG).exists():
        others = [file.name for file in out.iterdir() if not file.name.startswith((WORK, "."))]
        if others:
            raise UserError(f"{out} is not empty and holds no corpus. Choose another out=, so that nothing is lost.")


def _refuse_other_corpus(settings: CorpusSettings) -> None:
    """Raise UserError if `out` holds a corpus of another configuration."""
    given = settings.out / CONFIG
    if given.exists():
        before, now = (
            read_yaml_object(given, f"Restore it, or choose another out= than {settings.out}."),
            parse_yaml(dump_config(settings)),
        )
        for config in (before, now):
            teacher = config.get("teacher")
            if isinstance(teacher, dict):
                config["teacher"] = {k: v for k, v in teacher.items() if k not in MAY_CHANGE_OF_TEACHER}
        # Keys that a later version brought had their defaults.
        known = before.keys() | settings.model_dump(exclude_defaults=True).keys()
        if differing := [k for k in now if k in known - MAY_CHANGE and before.get(k) != now[k]]:
            was = ", ".join(f"{k} ({before.get(k)} there, {now[k]} now)" for k in differing)
            raise UserError(
                f"{settings.out} holds a corpus with another config: {was}. Choose another out=, or the same values."
            )


def _answered(queue: Queue) -> Iterator[tuple[Item, JsonObject]]:
    """Answers with all fields. Raises UserError for one that a damaged queue has lost a part of."""
    for item, answer in queue.answered():
        if missing := Answer.model_fields.keys() - answer.keys():
            raise UserError(
                f"{queue.path} is damaged: the answer about item {item.index} has no {min(missing)}. Restore the file, or choose "
                "another out=."
            )
        yield item, answer


def picture_of(settings: CorpusSettings, queue: Queue, item: Item) -> bytes | None:
    """The picture that the item was asked about. Raises HeldError where another stands in its place now."""
    if not item.has_picture:
        return queue.picture(item.index)
    picture = settings.source.picture(item)
    refuse_other_picture(queue, item, picture)
    return picture


def filter_all(settings: CorpusSettings, queue: Queue, helpers: Helpers) -> Dropped:
    """Texts first, which cost nothing; then the judges, who look at what is left."""
    filters = settings.filters
    dropped = filter_texts(_answered(queue), filters)

    def pixels(item: Item) -> np.ndarray:
        return read_picture(picture_of(settings, queue, item) or b"", settings.pictures, item.id)

    drawn = queue.drawn()

    def with_pictures() -> Iterator[tuple[Item, JsonObject]]:
        return (row for row in _answered(queue) if row[0].has_picture or row[0].index in drawn)

    if filters.aesthetic and helpers.scorer:
        filter_scores(queue, with_pictures(), pixels, filters.aesthetic, helpers.scorer, dropped)
    if filters.contradiction and helpers.questioner:
        filter_contradictions(queue, with_pictures(), pixels, filters.contradiction, helpers.questioner, dropped)
    return dropped


def finish(settings: CorpusSettings, queue: Queue, dropped: Dropped, teacher: str, is_whole: bool) -> CorpusTotals:
    """Shards, what was set aside, and last the card."""
    counts = queue.counts()
    kept = counts.answered - len(dropped.reasons)
    rows = (
        row_for(item, answer, picture_of(settings, queue, item))
        for item, answer in _answered(queue)
        if item.index not in dropped.reasons
    )
    with atomic_directory(settings.out / DATA) as folder:
        write_shards(folder, rows, kept, settings.rows_per_shard)
    _write_lines(settings.out / REJECTED_FILE, _rejected(queue))
    _write_lines(settings.out / FILTERED_FILE, _filtered(queue, dropped))
    reasons = Counter(
        f"{name}: {reason}" if name != "near duplicate" else name for name, reason in dropped.reasons.values()
    )
    reasons.update(reason for _, reason, _ in queue.set_aside(FILTERED))
    aside = Counter(reason.partition(":")[0] for _, reason, _ in queue.set_aside(REJECTED))
    gone = dropped.reasons.keys() | set(queue.indices(REJECTED)) | set(queue.indices(FILTERED))
    made = CorpusTotals(
        kept, is_whole, counts, dict(reasons), dict(aside), queue.malformed_kinds(), dropped.no_verdict,
        dict(Counter(note for index, note in queue.notes() if index not in gone)), queue.source_counts(),
    )  # fmt: skip
    atomic_write_text(settings.out / CARD, card(settings, teacher, made))
    return made


def _rejected(queue: Queue) -> Iterator[JsonObject]:
    for item, reason, said in queue.set_aside(REJECTED):
        attempts = [
            {"kind": s.kind, "problem": s.problem, "characters": len(s.reply), "reply": s.reply[:MAX_SHOWN]}
            for s in said
        ]
        yield {"index": item.index, "id": item.id, "prompt": item.prompt.text, "reason": reason, "attempts": attempts}


def _filtered(queue: Queue, dropped: Dropped) -> Iterator[JsonObject]:
    for item, reason, _ in queue.set_aside(FILTERED):
        yield {"index": item.index, "id": item.id, "prompt": item.prompt.text, "reason": reason, "answer": None}
    for item, answer in _answered(queue):
        if item.index in dropped.reasons:
            reason = ": ".join(dropped.reasons[item.index])
            yield {"index": item.index, "id": item.id, "prompt": item.prompt.text, "reason": reason, "answer": answer}


def _write_lines(path: Path, rows: Iterator[JsonObject]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
