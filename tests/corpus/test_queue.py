import math

import pytest

from thinkdraw.corpus.queue import ANSWERED, FILTERED, REJECTED, WAITING, Queue, TeacherAnswer
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
        queue.record(0, 0, TeacherAnswer("x", "not JSON", "bad", 3, 4))
        queue.record(0, 1, TeacherAnswer("", "", "", 5, 6), answer='{"a": 1}')
        queue.record(1, 0, TeacherAnswer("y", "empty", "bad", 1, 0), reason="empty: bad")
        queue.settle(2, FILTERED, reason="picture: small")
        counts = queue.counts()
        assert (counts.waiting, counts.answered, counts.rejected, counts.filtered) == (1, 1, 1, 1)
        assert (counts.requests, counts.malformed, counts.tokens_in, counts.tokens_out) == (3, 2, 9, 10)
        assert [(item.index, answer) for item, answer in queue.answered()] == [(0, {"a": 1})]
        assert [(i.index, reason, len(said)) for i, reason, said in queue.set_aside(REJECTED)] == [(1, "empty: bad", 1)]
        assert queue.indices(ANSWERED) == [0] and queue.malformed_kinds() == {"empty": 1, "not JSON": 1}


def test_answers_come_in_order_page_by_page_while_the_queue_is_written_to(tmp_path, monkeypatch):
    monkeypatch.setattr("thinkdraw.corpus.queue.PAGE", 2)
    with Queue(tmp_path / "q.sqlite") as queue:
        queue.fill(ITEMS)
        for index in (3, 0, 2):
            queue.record(index, 0, TeacherAnswer(""), answer=f'{{"a": {index}}}')
        seen = []
        for item, answer in queue.answered():
            queue.add_verdicts("j", {item.index: 1.0})
            seen.append((item.index, answer["a"]))
        assert seen == [(0, 0), (2, 2), (3, 3)] and len(queue.verdicts("j")) == 3


def test_a_reply_is_recorded_once(tmp_path):
    import sqlite3

    with Queue(tmp_path / "q.sqlite") as queue:
        queue.fill(ITEMS)
        queue.record(0, 0, TeacherAnswer("x", "empty", "bad"))
        with pytest.raises(sqlite3.IntegrityError):
            queue.record(0, 0, TeacherAnswer("x"), answer="{}")
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
