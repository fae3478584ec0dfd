"""Scores stand beside the rollouts: a judge more rewrites nothing, and a row is scored once."""

import math
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tests.rollouts.helpers import drawn, filled

from thinkdraw.errors import UserError
from thinkdraw.rollouts import DamagedError, Judge, RolloutStore


@pytest.fixture
def store(tmp_path, policy) -> RolloutStore:
    return filled(tmp_path / "store", policy, 2)


def test_another_judge_leaves_the_shards_alone(store):
    def shards():
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (store.path / "shards").iterdir()}

    before, content = shards(), store.info()["content_hash"]
    column = store.add_judge("second", Judge(reward="pkg:Second", settings={"weight": 0.5}))
    for index, footer in store.footers():
        column.write(index, footer, torch.full((4,), 0.25), {"part": torch.tensor([1.0, math.nan, 3, 4])})
    assert shards() == before and store.info()["content_hash"] == content
    assert store.judges == ["counting", "second"] and (store.scores("second") == 0.25).all()
    found = store.info()["judges"]["second"]
    assert found["reward"] == "pkg:Second" and found["settings"] == {"weight": 0.5} and found["scored"] == 8
    table = column.table(1, dict(store.footers())[1])
    assert table["row"].to_pylist() == [4, 5, 6, 7] and table["components"][1].as_py() == '{"part": null}'


def test_no_verdict_is_null_in_the_file(store):
    table = store.column("counting").table(0, dict(store.footers())[0])
    assert table["score"].to_pylist() == [0.0, None, 2.0, 3.0]


def test_rows_are_scored_once(store):
    footer = dict(store.footers())[0]
    with pytest.raises(UserError, match=r"row 0: .*000000.parquet exists already, and rows are scored once"):
        store.column("counting").write(0, footer, torch.zeros(4))
    assert store.scores("counting")[2] == 2


def test_a_name_stands_for_one_judge(store):
    store.add_judge("second", Judge(reward="a", settings={"weight": 1}))
    store.add_judge("second", Judge(reward="a", settings={"weight": 1}))
    with pytest.raises(UserError, match=r"scores 'second' are of a\(weight=1\), not of a\(weight=2\)"):
        store.add_judge("second", Judge(reward="a", settings={"weight": 2}))
    with pytest.raises(UserError, match="score column 'a/b'"):
        store.add_judge("a/b", Judge(reward="a"))


def test_wrong_numbers_of_scores_are_refused_before_anything_is_written(store, policy):
    with pytest.raises(ValueError, match="scores counting: expected a tensor of 4 numbers"):
        store.append(drawn(policy), {"counting": torch.zeros(3)})
    assert store.num_shards == 2


def test_damaged_scores_are_named_and_the_rollouts_are_not_touched_by_them(store):
    path = store.path / "scores/counting/000001.parquet"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DamagedError, match=r"of rows 4 to 7 are damaged .* Remove that file and score again"):
        store.scores("counting")
    assert store.scores("counting", skip_damaged=True)[2] == 2
    assert store.readable_shards() == [0, 1] and store.info()["judges"]["counting"]["damaged"] == ["000001"]
    (store.path / "scores/counting/000000.parquet").replace(path)
    with pytest.raises(DamagedError, match="belong to other rows"):
        store.scores("counting")


def test_a_changed_bit_in_scores_is_found_or_does_not_matter(store):
    path = store.path / "scores/counting/000000.parquet"
    data, rng, right, num_found = path.read_bytes(), random.Random(0), store.scores("counting").tolist(), 0
    for _ in range(200):
        place = rng.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :])
        try:
            found = store.scores("counting").tolist()
        except DamagedError:
            num_found += 1
        else:
            assert str(found) == str(right)
    assert num_found > 50


def test_scores_from_before_there_were_digests_are_read(store):
    path = store.path / "scores/counting/000000.parquet"
    table = pq.read_table(path)
    changed = table.set_column(1, "score", pa.array([9.0, 9, 9, 9], pa.float32()))
    pq.write_table(changed, path)
    with pytest.raises(DamagedError, match="their digest does not match what was written"):
        store.scores("counting")
    pq.write_table(changed.replace_schema_metadata(None), path)
    assert store.scores("counting")[0] == 9


def test_an_infinite_score_is_refused_where_it_is_read(store):
    path = store.path / "scores/counting/000000.parquet"
    table = pq.read_table(path).set_column(1, "score", pa.array([math.inf, 1, 2, 3], pa.float32()))
    pq.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(DamagedError, match="a score is infinite"):
        store.scores("counting")
