"""What processes tell each other."""

import pytest
import torch

from thinkdraw.errors import UserError
from thinkdraw.training import world
from thinkdraw.training.settings import TrainSettings
from thinkdraw.training.world import World


class Others(World):
    """This process and others that have what they are said to have."""

    def __init__(self, *others) -> None:
        self.others, self.size, self.rank = others, 1 + len(others), 0

    def gather(self, value):
        return [value, *self.others]


def test_processes_that_hold_the_same_go_on():
    Others({"a": 1, "b": 2}, {"a": 1, "b": 2}).refuse_differences("weights", {"a": 1, "b": 2}, "Way out.")
    Others().refuse_differences("weights", {"a": 1}, "Way out.")


def test_one_that_holds_something_else_is_named_with_what_differs():
    with pytest.raises(UserError) as told:
        Others({"a": 1, "b": 2}, {"a": 1, "b": 3}).refuse_differences("the weights", {"a": 1, "b": 2}, "Way out.")
    assert f"{told.value}" == "the weights: process 2 differs from process 0 in 1 of 2, b the first (2, 3). Way out."
    with pytest.raises(UserError, match="processes 1, 2 differ from process 0 in 3 of 3, a the first"):
        Others({"a": 5}, {"a": 5, "b": 2, "c": 1}).refuse_differences("the weights", {"a": 1, "b": 2}, "Way out.")


def test_several_processes_take_no_numbered_gpu(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(world, "pick_device", torch.device)
    with pytest.raises(UserError, match=r"device=cuda:1.*CUDA_VISIBLE_DEVICES"):
        World(TrainSettings.model_validate({"recipe": "sft", "out": "run", "device": "cuda:1"}))
