"""What is read back is what was appended."""

import dataclasses

import pyarrow.parquet as pq
import pytest
import torch
from tests.policies.suite import PROMPTS as PLAIN
from tests.policies.suite import TOLERANCE, difference, sampling
from tests.rollouts.helpers import PROMPTS, assert_equal, drawn

from thinkdraw.rollouts import RolloutStore
from thinkdraw.types import Rollouts, Sampling


@pytest.mark.parametrize("cut", [{}, {"top_k": 9}, {"top_p": 0.7}, {"guidance_scale": 3.0, "top_k": 5}])
@pytest.mark.parametrize("thought", ["inline", "rewrite", "off"])
def test_rollouts_come_back_exactly_and_the_policy_scores_them_as_it_sampled_them(tmp_path, policy, thought, cut):
    store = RolloutStore.create(tmp_path, policy, thought)
    written = [policy.sample(p, sampling(thought, **cut), group_size=2, seed=s) for s, p in enumerate((PLAIN, PROMPTS))]
    for rollouts in written:
        store.append(rollouts)
    for rollouts, shard in zip(written, RolloutStore.open(tmp_path).shards()):
        assert_equal(rollouts, shard.rollouts())
        assert shard.rollouts().pictures is None
        assert difference(policy, shard.rollouts()) <= TOLERANCE


def test_padding_that_a_selection_left_comes_back_too(tmp_path, policy):
    whole = drawn(policy, "rewrite", group_size=4)
    shorter = whole.select([0, 1])  # its contexts keep the width of the longer ones
    store = RolloutStore.create(tmp_path, policy, "rewrite")
    store.append(shorter)
    assert_equal(shorter, store.read_shard(0).rollouts())


def test_given_thoughts_come_back_with_what_was_dropped(tmp_path, policy):
    codes = torch.arange(32).reshape(2, 16)
    given = policy.teacher_forced(PROMPTS, ["a", "a longer thought"], codes, sampling(), torch.tensor([True, False]))
    store = RolloutStore.create(tmp_path, policy, "inline")
    store.append(dataclasses.replace(given, thoughts=()))
    assert_equal(dataclasses.replace(given, thoughts=()), store.read_shard(0).rollouts())


def test_a_rollout_may_have_more_segments_than_two(tmp_path, policy):
    # text, picture, text, picture, as reflection draws; the second row stops after its first picture
    segment = torch.tensor([[0] * 2 + [1] * 16 + [2] * 3 + [3] * 16, [0] * 5 + [1] * 16 + [-1] * 16]).to(torch.int8)
    is_image = (segment % 2 == 1) & (segment > 0)
    tokens = torch.where(segment >= 0, torch.arange(37), 0)
    mask = (segment >= 0) & (torch.arange(37) != 1)
    prompt_ids = torch.tensor([[0, 5, policy.text.pad], [0, 6, 7]])
    rollouts = Rollouts(
        prompts=tuple(PROMPTS), prompt_ids=prompt_ids, prompt_mask=prompt_ids != policy.text.pad, tokens=tokens,
        is_image=is_image, segment=segment, mask=mask, log_probs=torch.where(mask, -0.5, 0.0),
        seeds=torch.tensor([2**62, -1]), sampling=Sampling(), revision="r",
    )  # fmt: skip
    store = RolloutStore.create(tmp_path, policy, "inline")
    store.append(rollouts)
    assert_equal(rollouts, store.read_shard(0).rollouts())
    row = store.read_shard(0).table.to_pylist()[0]
    assert row["segment_lengths"] == [2, 16, 3, 16] and row["image_tokens"] == list(range(21, 37))


def test_what_cannot_come_back_is_refused(tmp_path, policy):
    rollouts = drawn(policy)
    store = RolloutStore.create(tmp_path, policy, "inline")
    swapped = torch.where(rollouts.segment >= 0, 1 - rollouts.segment, -1).to(torch.int8)
    with pytest.raises(ValueError, match="segments are out of order"):
        store.append(dataclasses.replace(rollouts, segment=swapped))
    holed = rollouts.prompt_mask.clone()
    holed[:, 1] = False
    with pytest.raises(ValueError, match="padding that is not on the right"):
        store.append(dataclasses.replace(rollouts, prompt_mask=holed))
    assert store.num_shards == 0


def test_a_shard_is_an_ordinary_parquet_file(tmp_path, policy):
    rollouts = drawn(policy)
    path = tmp_path / "seed=1"  # which pyarrow would take for a partition
    RolloutStore.create(path, policy, "inline").append(rollouts, policy_path="ckpt")
    table = pq.ParquetFile(path / "shards/000000.parquet").read()
    assert table["prompt"].to_pylist() == [p.text for p in rollouts.prompts]
    assert table["image_tokens"].to_pylist() == rollouts.image_tokens().tolist()
    assert table["row"].to_pylist() == [0, 1, 2, 3] and table["group"].to_pylist() == [0, 0, 1, 1]
    assert table["member"].to_pylist() == [0, 1, 0, 1] and table["seed"].to_pylist() == rollouts.seeds.tolist()
    assert str(table.schema.field("image_tokens").type.value_type) == "uint16"
    assert str(table.schema.field("log_probs").type.value_type) == "float"


def test_datasets_reads_the_shards(tmp_path, policy):
    datasets = pytest.importorskip("datasets")
    store = RolloutStore.create(tmp_path / "store", policy, "inline")
    for seed in range(2):
        store.append(drawn(policy, seed=seed))
    files = str(tmp_path / "store/shards/*.parquet")
    found = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert found["row"][:] == list(range(8)) and len(found[0]["image_tokens"]) == 16
