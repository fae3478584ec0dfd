import json
import random
import sqlite3
import subprocess
import sys

import pytest

from thinkdraw.errors import UserError
from thinkdraw.runtime.cache import AnswerCache

# 50 rounds of reading what all wrote and writing one more, in a process of its own
WORKER = """
import sys
from thinkdraw.runtime.cache import AnswerCache
path, name = sys.argv[1:]
for k in range(50):
    cache = AnswerCache(path) if k % 10 == 0 else cache
    found = cache.get("judge", "r", [f"{other}{i}" for other in "abcd" for i in range(50)])
    assert all(value == {"of": key} for key, value in found.items())
    cache.put("judge", "r", {f"{name}{k}": {"of": f"{name}{k}"}, "shared": {"of": "shared"}})
"""


def test_an_answer_is_found_under_its_judge_revision_and_content_alone(tmp_path):
    cache = AnswerCache(tmp_path / "deep" / "cache.sqlite")
    cache.put("clip", "r1", {"a": {"reward": 0.1}, "b": None})
    assert cache.get("clip", "r1", ["a", "b", "c"]) == {"a": {"reward": 0.1}, "b": None}
    assert cache.get("clip", "r2", ["a"]) == cache.get("hps", "r1", ["a"]) == cache.get("clip", "r1", []) == {}


def test_answers_outlive_the_process_object_and_are_replaced(tmp_path):
    with_old = AnswerCache(tmp_path / "c")
    with_old.put("j", "r", {"a": 1, "b": 2})
    with_old.close()
    again = AnswerCache(tmp_path / "c")
    again.put("j", "r", {"a": 3})
    assert again.get("j", "r", ["a", "b"]) == {"a": 3, "b": 2} and len(again) == 2


def test_many_keys_are_found_in_one_call(tmp_path):
    cache = AnswerCache(tmp_path / "c")
    answers = {f"k{i}": i for i in range(1203)}  # three queries of 500 at most
    cache.put("j", "r", answers)
    assert cache.get("j", "r", [*answers, "k9999"]) == answers


def test_it_is_bounded_and_the_oldest_leave_first(tmp_path):
    cache = AnswerCache(tmp_path / "c", max_answers=10)
    for i in range(25):
        cache.put("j", "r", {f"k{i}": i})
    assert cache.get("j", "r", [f"k{i}" for i in range(25)]) == {f"k{i}": i for i in range(15, 25)}
    cache.put("j", "r", {"k15": 0})  # written again, it is the newest
    cache.put("j", "r", {f"n{i}": i for i in range(9)})
    assert len(cache) == 10 and cache.get("j", "r", ["k15", "k16"]) == {"k15": 0}


def test_several_processes_share_it(tmp_path):
    path = str(tmp_path / "c")
    jobs = [
        subprocess.Popen([sys.executable, "-c", WORKER, path, name], stderr=subprocess.PIPE, text=True)
        for name in "abcd"
    ]
    errors = [job.communicate(timeout=120)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 4, errors
    cache = AnswerCache(path)
    keys = [f"{name}{k}" for name in "abcd" for k in range(50)]
    assert len(cache) == 201 and cache.get("judge", "r", keys) == {key: {"of": key} for key in keys}


def test_a_killed_writer_leaves_what_it_had_put(tmp_path):
    code = (
        "import os, sys; from thinkdraw.runtime.cache import AnswerCache; c = AnswerCache(sys.argv[1]);"
        "c.put('j', 'r', {'a': 1}); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "c")]).returncode == -9
    assert AnswerCache(tmp_path / "c").get("j", "r", ["a"]) == {"a": 1}


def test_what_cannot_be_an_answer_changes_nothing(tmp_path):
    cache = AnswerCache(tmp_path / "c")
    with pytest.raises(ValueError, match="JSON"):
        cache.put("j", "r", {"a": 1, "b": float("nan")})
    assert len(cache) == 0


@pytest.mark.parametrize("content", [b"not a database " * 100, json.dumps({"a": 1}).encode() * 50])
def test_another_file_in_its_place_is_one_line(tmp_path, content):
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(UserError, match="move it away, so that its verdicts are not lost") as error:
        AnswerCache(tmp_path / "c")
    assert "\n" not in str(error.value) and (tmp_path / "c").read_bytes() == content


def test_a_folder_in_its_place_and_an_empty_cache_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be used"):
        AnswerCache(tmp_path)
    with pytest.raises(UserError, match="max_answers=0"):
        AnswerCache(tmp_path / "c", max_answers=0)


def test_a_full_disk_is_said_to_be_full_and_costs_no_answer(tmp_path):
    cache = AnswerCache(tmp_path / "c")
    cache.put("j", "r", {"a": 1})
    cache._connection().execute("PRAGMA max_page_count = 8")
    with pytest.raises(UserError, match=r"disk is full: free space on it and go on\. The verdicts in it are safe"):
        cache.put("j", "r", {f"k{i}": "y" * 200 for i in range(1000)})
    assert cache.get("j", "r", ["a"]) == {"a": 1} and len(cache) == 1


def test_an_answer_that_was_changed_on_the_disk_is_asked_for_again(tmp_path):
    cache = AnswerCache(tmp_path / "c")
    cache.put("j", "r", {"a": {"reward": 0.25}, "b": {"reward": 0.5}})
    cache._connection().execute("UPDATE answers SET answer = '{\"reward\": 0.75}' WHERE content = 'a'")
    with pytest.warns(UserWarning, match="1 answers are not what was written, and the judge is asked again"):
        assert cache.get("j", "r", ["a", "b"]) == {"b": {"reward": 0.5}}
    cache.put("j", "r", {"a": {"reward": 0.25}})
    assert cache.get("j", "r", ["a"]) == {"a": {"reward": 0.25}}


@pytest.mark.filterwarnings("ignore:cache .*are not what was written")
def test_a_flipped_bit_anywhere_gives_no_other_answer(tmp_path):
    cache, answers = AnswerCache(tmp_path / "c"), {f"k{i}": {"reward": i / 10} for i in range(40)}
    cache.put("j", "r", answers)
    cache.close()
    data, rng, num_found = (tmp_path / "c").read_bytes(), random.Random(0), 0
    for i in range(60):
        place = rng.randrange(len(data))
        path = tmp_path / f"c{i}"
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        try:
            damaged = AnswerCache(path)
            found = damaged.get("j", "r", list(answers))
            damaged.close()
        except UserError:
            num_found += 1
            continue
        assert found.items() <= answers.items()
        num_found += found != answers
    assert num_found > 5


def test_a_file_from_before_there_were_digests_keeps_its_answers(tmp_path):
    with sqlite3.connect(tmp_path / "c") as old:
        old.execute(
            "CREATE TABLE answers (number INTEGER PRIMARY KEY, judge TEXT NOT NULL, revision TEXT NOT NULL, "
            "content TEXT NOT NULL, answer TEXT NOT NULL, UNIQUE (judge, revision, content))"
        )
        old.execute("INSERT INTO answers (judge, revision, content, answer) VALUES ('j', 'r', 'a', '3')")
    old.close()
    with pytest.warns(UserWarning, match="written without digests; its answers get them now"):
        cache = AnswerCache(tmp_path / "c")
    assert cache.get("j", "r", ["a"]) == {"a": 3}
