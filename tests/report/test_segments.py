"""A rollout of many segments on the page: each text, and each picture as far as it was drawn."""

import dataclasses
import json

import pytest
import torch
from tests.report.test_report import data_of, page_of
from tests.rollouts.segmented import INTERLEAVED, StubPolicy, interleaved, of_ten_scales

from thinkdraw.images import to_png
from thinkdraw.recipes.phase.rollout_log import write_rollouts
from thinkdraw.report.files import data_uri
from thinkdraw.rollouts.readable import readable_segments


def logged(folder, rollouts, policy=None):
    rollouts = dataclasses.replace(rollouts, pictures=StubPolicy().decode_tokens(rollouts.image_tokens()))
    (folder / "rollouts").mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "reward_mean": 0.5}) + "\n", encoding="utf-8")
    rewards = torch.tensor([4.0, 3.0, 2.0, 1.0])
    file = folder / "rollouts" / "step_000001.parquet"
    write_rollouts(file, 1, rollouts, rewards, rewards - 2.5, {}, 2, policy)
    return rollouts


@pytest.mark.parametrize("made", [interleaved, of_ten_scales])
def test_all_texts_and_pictures_of_a_rollout_are_on_the_page_in_order(tmp_path, made):
    policy = StubPolicy()
    rollouts = logged(tmp_path / "run", made(), policy)
    groups = data_of(page_of(tmp_path / "run", tmp_path))["groups"]
    members = [member for group in groups for member in group["members"]]  # best reward first: the rows in order
    for row, member in enumerate(members):
        wanted = readable_segments(rollouts, row, policy)
        assert [s["kind"] for s in member["segments"]] == [s.kind for s in wanted]
        assert [s["text"] for s in member["segments"]] == [s.text for s in wanted]
        pictures = [None if s.picture is None else data_uri(to_png(s.picture)) for s in wanted]
        assert [s["png"] for s in member["segments"]] == pictures
        assert member["png"] == data_uri(to_png(rollouts.pictures[row]))
    if made is interleaved:
        assert [s["kind"] for s in members[0]["segments"]] == [s.kind for s in INTERLEAVED]
        assert len({s["png"] for s in members[0]["segments"]} - {None}) == 4


def test_texts_that_nobody_can_read_are_an_error_and_not_left_out(tmp_path):
    with pytest.raises(ValueError, match="need the policy"):
        logged(tmp_path / "run", interleaved())
