"""One flat file with everything, for tools that know nothing of stores."""

import json

import pyarrow.parquet as pq
import pytest
from tests.rollouts.helpers import filled

from thinkdraw.errors import UserError
from thinkdraw.picture_reader import read_picture
from thinkdraw.rollouts import Judge, RolloutStore
from thinkdraw.rollouts.export import export


def test_parquet_has_a_row_per_rollout_with_all_scores(tmp_path, policy):
    store = filled(tmp_path / "store", policy)
    store.add_judge("later", Judge(reward="later"))  # asked for nothing yet
    table = pq.read_table(export(store, tmp_path / "flat"))
    assert table["row"].to_pylist() == list(range(12))
    assert table["score_counting"].to_pylist()[:4] == [0.0, None, 2.0, 3.0]
    assert table["score_later"].null_count == 12


def test_jsonl_has_the_same_rows_and_the_pictures_that_the_tokens_stand_for(tmp_path, policy):
    store = filled(tmp_path / "store", policy)
    path = export(
        store, tmp_path / "flat", as_jsonl=True, pictures=lambda s: policy.decode_tokens(s.rollouts().image_tokens())
    )
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["row"] for row in rows] == list(range(12)) and rows[1]["score_counting"] is None
    rollouts = store.read_shard(1).rollouts()
    shown = read_picture(tmp_path / "flat" / rows[6]["picture"])
    assert (shown == policy.decode_tokens(rollouts.image_tokens())[2].numpy()).all()
    assert rows[6]["image_tokens"] == rollouts.image_tokens()[2].tolist()


def test_a_damaged_shard_is_left_out_only_on_request(tmp_path, policy):
    store = filled(tmp_path / "store", policy)
    (tmp_path / "store/shards/000001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"000001.parquet is damaged"):
        export(store, tmp_path / "flat")
    assert not (tmp_path / "flat/rollouts.parquet").exists()
    assert len(pq.read_table(export(store, tmp_path / "flat", skip_damaged=True))) == 8


def test_an_empty_store_gives_an_empty_file(tmp_path, policy):
    store = RolloutStore.create(tmp_path / "store", policy, "off")
    assert export(store, tmp_path / "flat", as_jsonl=True).read_text() == ""
    assert len(pq.read_table(export(store, tmp_path / "flat"))) == 0
