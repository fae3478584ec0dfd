"""Killed at random and started again, a corpus is what it would have been, and nothing but what was under way is paid twice."""

import multiprocessing
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from tests.corpus.helpers import rows_of, settings_of

from thinkdraw.corpus.teachers.endpoint import EndpointTeacher
from thinkdraw.corpus.writing import DATA, FILTERED_FILE, REJECTED_FILE, write

COUNT, CONCURRENCY, KILLS = 40, 4, 5
# A server whose children are forks of a process that has imported everything: each start takes milliseconds.
context = multiprocessing.get_context("forkserver")
context.set_forkserver_preload(
    ["tests.corpus.test_exactly_once", "thinkdraw.runtime.http", "tests.corpus.teacher_stub"]
)


def settings(out: Path, url: str):
    return settings_of(
        out, url, source={"kind": "lab", "count": COUNT, "families": {"geneval": 0.5, "dense": 0.5}},
        teacher={"concurrency": CONCURRENCY}, filters={"min_jaccard": 0.6, "min_words": 18}, rows_per_shard=15,
    )  # fmt: skip


def write_in(out: Path, url: str) -> None:
    write(s := settings(out, url), EndpointTeacher(s.teacher))


def serve(folder: Path, *faults: str) -> None:
    from tests.corpus.teacher_stub import serve_in

    serve_in(folder, *faults)


def wait_for(found, patience_s: float = 60.0):
    deadline = time.monotonic() + patience_s
    while not (value := found()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.002)
    return value


@pytest.fixture
def teacher(tmp_path):
    folder = tmp_path / "teacher"
    folder.mkdir()
    process = context.Process(target=serve, args=(folder, "not JSON"), daemon=True)
    process.start()
    wait_for((folder / "url").is_file)
    yield folder
    process.kill()
    process.join()


def asked(folder: Path) -> list[str]:
    file = folder / "requests"
    return file.read_text().split() if file.exists() else []


def test_five_kills_change_no_row_and_pay_for_nothing_but_what_was_under_way(tmp_path, teacher):
    url, out = (teacher / "url").read_text(), tmp_path / "killed"
    # Two requests an item, the first answer being malformed: 80. Kills fall anywhere in the first 70.
    for threshold in sorted(random.Random(4).sample(range(3, 70), KILLS)):
        process = context.Process(target=write_in, args=(out, url))
        process.start()
        wait_for(lambda t=threshold: len(asked(teacher)) >= t)
        process.kill()
        process.join()
    killed = len(asked(teacher))
    write_in(out, url)
    paid = Counter(asked(teacher))
    assert killed < 2 * COUNT <= sum(paid.values())
    assert len(paid) == 2 * COUNT
    assert sum(paid.values()) - len(paid) <= KILLS * CONCURRENCY

    write_in(tmp_path / "whole", url)
    assert len(asked(teacher)) == sum(paid.values()) + 2 * COUNT
    assert 0 < len(rows_of(out)) < COUNT  # the filters had work
    names = [file.relative_to(out) for file in sorted((out / DATA).iterdir())]
    assert len(names) > 1
    for name in [*names, Path(REJECTED_FILE), Path(FILTERED_FILE)]:
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert write_again_asks_nothing(out, url, teacher)


def write_again_asks_nothing(out: Path, url: str, teacher: Path) -> bool:
    before = len(asked(teacher))
    write_in(out, url)
    return len(asked(teacher)) == before
