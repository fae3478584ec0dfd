"""Writes a corpus: fill the queue, ask, filter, write shards and card.

Each step goes on where a stopped run left it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thinkdraw.config import dump_config, save_config
from thinkdraw.corpus.card import CorpusTotals, card
from thinkdraw.corpus.changes import check_picture_unchanged, update_queue
from thinkdraw.corpus.filters.filtering import Exclusions, filter_contradictions, filter_scores, filter_texts
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
MAY_CHANGE = {"limits", "filters", "licence", "rows_per_shard"}  # settings that may change when a stopped run goes on
MAY_CHANGE_OF_TEACHER = {"base_url", "concurrency", "timeout_s", "key_env", "batch", "extra_body"}
MAX_REPLY_CHARACTERS = 4000  # of a malformed reply in rejected.jsonl

Draw = Callable[[Queue, Iterator[tuple[Item, JsonObject]]], None]
"""Draws and stores the pictures of answered items that have none."""


@dataclass(frozen=True)
class Helpers:
    """Judges and drawer that the configuration names and a recipe opens; None without."""

    questioner: Questioner | None = None
    scorer: Scorer | None = None
    draw: Draw | None = None


def write(
    settings: CorpusSettings, teacher: Teacher, helpers: Helpers = Helpers(), show: Callable[[Status], None] = lambda status: None
) -> Path:  # fmt: skip
    """Write the corpus and return its folder.

    If the budget ends first, the corpus has the rows there are, and the card says so. Without any row it is an error
    that says what became of the items.
    Raises UserError. Answers that came are stored, and the next run goes on.
    """
    _check_folder(settings.out)
    with only_writer(settings.out), _open_queue(settings) as queue:
        counts, source = Counter[str](), f"source {settings.source.kind}"
        if not queue.fill(settings.source.items(counts), counts):
            raise UserError(f"{source} holds nothing to write about ({counts_line('files', counts)}). Check its path.")
        print_counts(source, queue.source_counts())
        save_config(settings, settings.out / CONFIG)
        is_complete = ask_all(
            queue, settings.source, teacher, settings.limits, settings.filters.shape, show, settings.pictures
        )
        if helpers.draw:
            helpers.draw(queue, (row for row in _complete_answers(queue) if not row[0].has_picture))
        exclusions = filter_all(settings, queue, helpers)
        totals = write_results(settings, queue, exclusions, teacher.name, is_complete)
        first_reason = next((reason for _, reason, _ in queue.excluded_items(REJECTED)), "")
    if not totals.rows:
        reasons = (Counter(totals.rejected) + Counter(totals.filtered)).most_common(3)
        listed = "; ".join(f"{reason} ({count})" for reason, count in reasons) or "the budget ended before an answer"
        first = f" The first that was set aside: {printable(first_reason)[:300].rstrip('.')}." if first_reason else ""
        raise UserError(
            f"{settings.out} has no rows: {listed}.{first} See {REJECTED_FILE} and {FILTERED_FILE} there for all."
        )
    filtered = {f"left out by filters ({reason})": count for reason, count in totals.filtered.items()}
    rejected = {f"set aside ({kind})": count for kind, count in totals.rejected.items()}
    print_counts(f"corpus {settings.out}", {"rows": totals.rows, **filtered, **rejected})
    return settings.out


@contextmanager
def _open_queue(settings: CorpusSettings) -> Iterator[Queue]:
    """Open the folder's queue, brought to what the source holds now.

    A queue of which nothing was asked yet binds nobody to its configuration. A refused start leaves no trace of a new
    queue.
    Raises UserError for a corpus of another configuration.
    """
    has_begun = True  # until the queue is open: another process may hold it, and its files must stay
    try:
        with Queue(settings.out / WORK) as queue:
            if has_begun := queue.counts().requests > 0:
                _check_config(settings)
                update_queue(queue, settings.source, settings.out)
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


def _check_folder(out: Path) -> None:
    is_foreign = out.is_dir() and not (out / CONFIG).exists()
    if is_foreign and any(not file.name.startswith((WORK, ".")) for file in out.iterdir()):
        raise UserError(f"{out} is not empty and holds no corpus. Choose another out=, so that nothing is lost.")


def _check_config(settings: CorpusSettings) -> None:
    """Raise UserError if `out` holds a corpus of another configuration."""
    path = settings.out / CONFIG
    if path.exists():
        before, now = (
            read_yaml_object(path, f"Restore it, or choose another out= than {settings.out}."),
            parse_yaml(dump_config(settings)),
        )
        for config in (before, now):
            teacher = config.get("teacher")
            if isinstance(teacher, dict):
                config["teacher"] = {k: v for k, v in teacher.items() if k not in MAY_CHANGE_OF_TEACHER}
        # A key that is missing in the old file is new in this version: the old run had its default.
        known = before.keys() | settings.model_dump(exclude_defaults=True).keys()
        if differing := [k for k in now if k in known - MAY_CHANGE and before.get(k) != now[k]]:
            values = ", ".join(f"{k} ({before.get(k)} there, {now[k]} now)" for k in differing)
            raise UserError(
                f"{settings.out} holds a corpus with another config: {values}. Choose another out=, or the same values."
            )


def _complete_answers(queue: Queue) -> Iterator[tuple[Item, JsonObject]]:
    """Yield answers with all fields. Raises UserError for one that lost a field."""
    for item, answer in queue.answered_items():
        if missing := Answer.model_fields.keys() - answer.keys():
            raise UserError(
                f"{queue.path} is damaged: the answer about item {item.index} has no {min(missing)}. Restore the file, or choose "
                "another out=."
            )
        yield item, answer


def picture_of(settings: CorpusSettings, queue: Queue, item: Item) -> bytes | None:
    """Return the picture that the item was asked about.

    Raises HeldError if the source now has another picture for it.
    """
    if not item.has_picture:
        return queue.picture(item.index)
    picture = settings.source.picture(item)
    check_picture_unchanged(queue, item, picture)
    return picture


def filter_all(settings: CorpusSettings, queue: Queue, helpers: Helpers) -> Exclusions:
    """Run the filters on texts first, which cost nothing; then the judges on the rest."""
    filters = settings.filters
    exclusions = filter_texts(_complete_answers(queue), filters)

    def pixels(item: Item) -> np.ndarray:
        return read_picture(picture_of(settings, queue, item) or b"", settings.pictures, item.id)

    drawn_indices = queue.drawn_indices()

    def with_pictures() -> Iterator[tuple[Item, JsonObject]]:
        return (row for row in _complete_answers(queue) if row[0].has_picture or row[0].index in drawn_indices)

    if filters.aesthetic and helpers.scorer:
        filter_scores(queue, with_pictures(), pixels, filters.aesthetic, helpers.scorer, exclusions)
    if filters.contradiction and helpers.questioner:
        filter_contradictions(queue, with_pictures(), pixels, filters.contradiction, helpers.questioner, exclusions)
    return exclusions


def write_results(
    settings: CorpusSettings, queue: Queue, exclusions: Exclusions, teacher: str, is_complete: bool
) -> CorpusTotals:
    """Write the shards, the rows that were left out, and last the card."""
    counts = queue.counts()
    num_rows = counts.answered - len(exclusions.reasons)
    rows = (
        row_for(item, answer, picture_of(settings, queue, item))
        for item, answer in _complete_answers(queue)
        if item.index not in exclusions.reasons
    )
    with atomic_directory(settings.out / DATA) as folder:
        write_shards(folder, rows, num_rows, settings.rows_per_shard)
    _write_lines(settings.out / REJECTED_FILE, _rejected_rows(queue))
    _write_lines(settings.out / FILTERED_FILE, _filtered_rows(queue, exclusions))
    reasons = Counter(
        f"{name}: {reason}" if name != "near duplicate" else name for name, reason in exclusions.reasons.values()
    )
    reasons.update(reason for _, reason, _ in queue.excluded_items(FILTERED))
    aside = Counter(reason.partition(":")[0] for _, reason, _ in queue.excluded_items(REJECTED))
    excluded = exclusions.reasons.keys() | set(queue.indices(REJECTED)) | set(queue.indices(FILTERED))
    totals = CorpusTotals(
        num_rows, is_complete, counts, dict(reasons), dict(aside), queue.malformed_kinds(), exclusions.no_verdict,
        dict(Counter(note for index, note in queue.notes() if index not in excluded)), queue.source_counts(),
    )  # fmt: skip
    atomic_write_text(settings.out / CARD, card(settings, teacher, totals))
    return totals


def _rejected_rows(queue: Queue) -> Iterator[JsonObject]:
    for item, reason, replies in queue.excluded_items(REJECTED):
        attempts = [
            {"kind": s.kind, "problem": s.problem, "characters": len(s.reply), "reply": s.reply[:MAX_REPLY_CHARACTERS]}
            for s in replies
        ]
        yield {"index": item.index, "id": item.id, "prompt": item.prompt.text, "reason": reason, "attempts": attempts}


def _filtered_rows(queue: Queue, exclusions: Exclusions) -> Iterator[JsonObject]:
    for item, reason, _ in queue.excluded_items(FILTERED):
        yield {"index": item.index, "id": item.id, "prompt": item.prompt.text, "reason": reason, "answer": None}
    for item, answer in _complete_answers(queue):
        if item.index in exclusions.reasons:
            reason = ": ".join(exclusions.reasons[item.index])
            yield {"index": item.index, "id": item.id, "prompt": item.prompt.text, "reason": reason, "answer": answer}


def _write_lines(path: Path, rows: Iterator[JsonObject]) -> None:
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")
