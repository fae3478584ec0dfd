import math

import pytest

from thinkdraw.corpus.queue import ANSWERED, FILTERED, REJECTED, WAITING, Attempt, Queue
from thinkdraw.corpus.sources import Item
from thinkdraw.errors import UserError
from thinkdraw.types import Prompt

ITEMS = [Item(n, f"item-{n}", Prompt(f"prompt {n}", f"item-{n}"), n % 2 == 0, ["f", n]) for n in range(4)]


def test_items_come_back_as_they_went_in_and_are_filled_once(tmp_path):
    with Queue(tmp_path / "q.sqlite") as queue:
        assert queue.fill(ITEMS) == 4
        assert queue.fill(ITEMS[:1]) == 4
        assert [queue.item(n) for n in queue.indices(WAITING)] == ITEMS


def test_every_item_is_in_one_state_and_tokens_add_up(tmp_path):
    with Queue(tmp_path / "q.sqlite") as queue:
        queue.fill(ITEMS)
        queue.record(0, 0, Attempt("x", "not JSON", "bad", 3, 4))
        queue.record(0, 1, Attempt("", "", "", 5, 6), answer='{"a": 1}')
        queue.record(1, 0, Attempt("y", "empty", "bad", 1, 0), reason="empty: bad")
        queue.settle(2, FILTERED, reason="picture: small")
        counts = queue.counts()
        assert (counts.waiting, counts.answered, counts.rejected, counts.filtered) == (1, 1, 1, 1)
        assert (counts.requests, counts.malformed, counts.tokens_in, counts.tokens_out) == (3, 2, 9, 10)
        assert [(item.index, answer) for item, answer in queue.answered_items()] == [(0, {"a": 1})]
        assert [(i.index, reason, len(said)) for i, reason, said in queue.excluded_items(REJECTED)] == [
            (1, "empty: bad", 1)
        ]
        assert queue.indices(ANSWERED) == [0] and queue.malformed_kinds() == {"empty": 1, "not JSON": 1}


def test_answers_come_in_order_page_by_page_while_the_queue_is_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("thinkdraw.corpus.queue.PAGE", 2)
    with Queue(tmp_path / "q.sqlite") as queue:
        queue.fill(ITEMS)
        for index in (3, 0, 2):
            queue.record(index, 0, Attempt(""), answer=f'{{"a": {index}}}')
        seen = []
        for item, answer in queue.answered_items():
            queue.add_verdicts("j", {item.index: 1.0})
            seen.append((item.index, answer["a"]))
        assert seen == [(0, 0), (2, 2), (3, 3)] and len(queue.verdicts("j")) == 3


def test_a_reply_is_recorded_once(tmp_path):
    import sqlite3

    with Queue(tmp_path / "q.sqlite") as queue:
        queue.fill(ITEMS)
        queue.record(0, 0, Attempt("x", "empty", "bad"))
        with pytest.raises(sqlite3.IntegrityError):
            queue.record(0, 0, Attempt("x"), answer="{}")
        assert queue.counts().answered == 0  # the answer went with the reply


def test_a_verdict_that_is_none_stays_nan(tmp_path):
    with Queue(tmp_path / "q.sqlite") as queue:
        queue.add_verdicts("j", {0: math.nan, 1: 0.25})
        assert queue.verdicts("j")[1] == 0.25 and math.isnan(queue.verdicts("j")[0])


def test_one_process_at_a_time(tmp_path):
    with Queue(tmp_path / "q.sqlite"):
        with pytest.raises(UserError, match="another"):
            Queue(tmp_path / "q.sqlite")
    Queue(tmp_path / "q.sqlite").__exit__()


def test_a_file_that_is_no_queue_is_named(tmp_path):
    (tmp_path / "q.sqlite").write_text("not a database, " * 100)
    with pytest.raises(UserError, match=r"q\.sqlite"):
        Queue(tmp_path / "q.sqlite")


def damaged(path, statement):
    import sqlite3

    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE items SET answer = '{' WHERE idx = 0", "the answer about item 0 cannot be read"),
        ("UPDATE items SET answer = '[]' WHERE idx = 0", "the answer about item 0 cannot be read"),
        ("UPDATE items SET answer = NULL WHERE idx = 0", "the answer about item 0 cannot be read"),
        ("UPDATE items SET item = '{\"id\": 3}' WHERE idx = 0", "item 0 cannot be read"),
        ("UPDATE items SET item = x'ff' WHERE idx = 0", "item 0 cannot be read|cannot be used"),
    ],
)
def test_a_damaged_row_is_one_line_with_the_file(tmp_path, statement, says):
    with Queue(tmp_path / "q.sqlite") as queue:
        queue.fill(ITEMS)
        queue.record(0, 0, Attempt(""), answer="{}")
    damaged(tmp_path / "q.sqlite", statement)
    with pytest.raises(UserError, match=says) as raised, Queue(tmp_path / "q.sqlite") as queue:
        list(queue.answered_items())
    assert "q.sqlite" in str(raised.value) and "\n" not in str(raised.value)


def test_a_full_disk_is_one_line_and_what_is_there_stays(tmp_path):
    with Queue(tmp_path / "q.sqlite") as queue:
        queue.fill(ITEMS)
    with pytest.raises(UserError, match=r"q\.sqlite cannot be used.*free space"), Queue(tmp_path / "q.sqlite") as queue:
        pages = queue._db.execute("PRAGMA page_count").fetchone()[0]
        queue._db.execute(f"PRAGMA max_page_count = {pages + 2}")  # as a disk without room is for the file
        queue.add_pictures({n: bytes(50_000) for n in range(9)})
    with Queue(tmp_path / "q.sqlite") as queue:
        assert len(queue.indices(WAITING)) == 4 and not queue.drawn_indices()


def test_what_became_of_a_source_is_kept_with_its_items(tmp_path):
    counts = {"read": 0}

    def items():
        for item in ITEMS:
            counts["read"] += 1
            yield item

    with Queue(tmp_path / "q.sqlite") as queue:
        queue.fill(items(), counts)
    with Queue(tmp_path / "q.sqlite") as queue:
        assert queue.source_counts() == {"read": 4}
