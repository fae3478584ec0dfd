"""Rollouts and stores to test with; also what tests run in processes of their own, and kill there."""

import dataclasses
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from tests.policies.suite import sampling
from torch import Tensor

from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.rollouts import RolloutStore
from thinkdraw.types import Prompt, Question, Rollouts

PROMPTS = [
    Prompt(
        "a red circle",
        id="one",
        tag="colors",
        include=({"class": "circle", "count": 1, "color": "red"},),
        exclude=({"class": "circle", "count": 2},),
        questions=(
            Question(0, "is there a circle?", fact={"kind": "exists", "thing": {"shape": "circle"}}),
            Question(1, "is it red?", depends_on=(0,)),
        ),
    ),
    Prompt("two blue squares left of a very small green triangle — “später”", id="two"),
]


def drawn(
    policy: JanusPolicy, thought: str = "inline", group_size: int = 2, seed: int = 0, **settings: Any
) -> Rollouts:
    return policy.sample(PROMPTS, sampling(thought, **settings), group_size=group_size, seed=seed)


def filled(path: Path, policy: JanusPolicy, shards: int = 3, **settings: Any) -> RolloutStore:
    """`shards` shards of 2 groups of 2, scored 0, 1, … by `counting`; the second row of each shard has no verdict."""
    store = RolloutStore.create(path, policy, "inline")
    for seed in range(shards):
        scores = torch.arange(4) + 4.0 * seed
        scores[1] = torch.nan
        store.append(drawn(policy, seed=seed, **settings), {"counting": scores}, "somewhere")
    return store


def assert_equal(one: Rollouts, other: Rollouts) -> None:
    """All fields but the pictures, dtypes and padding included."""
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "allowed" and a is not None:
            assert torch.equal(a.indices, b.indices) and a.indices.dtype == b.indices.dtype
            assert torch.equal(a.counts, b.counts) and a.counts.dtype == b.counts.dtype
        elif field.name == "fresh_contexts":
            for mine, its in zip(a, b, strict=True):
                assert torch.equal(mine.ids, its.ids) and torch.equal(mine.mask, its.mask)
        elif isinstance(a, Tensor) and field.name != "pictures":
            assert a.dtype == b.dtype and torch.equal(a, b), field.name
        elif field.name != "pictures":
            assert a == b, field.name


class Witness:
    """Mean code of a picture; notes the seed of each row that it judges, and gives up after some calls."""

    name = "witness"

    def __init__(self, log: str, fail_at_call: int = 0) -> None:
        self.log, self.fail_at_call, self.calls = Path(log), fail_at_call, 0

    def __call__(self, rollouts: Rollouts) -> Tensor:
        assert rollouts.pictures is not None
        self.calls += 1
        if self.calls == self.fail_at_call:
            raise RuntimeError("the judge is gone")
        with self.log.open("a") as file:
            file.writelines(f"{seed}\n" for seed in rollouts.seeds.tolist())
        return rollouts.image_tokens().float().mean(1)


def _main(config_file: str, kill_in: str, at_call: str) -> None:
    """`thinkdraw sample`, killed in the n-th call of one of its steps."""
    from thinkdraw.config import load_config
    from thinkdraw.recipes import sample as recipe
    from thinkdraw.rollouts import files, scores

    owner, name = {"publish": (files.os, "link"), "scores": (scores.ScoreColumn, "write")}[kill_in]
    before, calls = getattr(owner, name), []

    def killed(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == int(at_call):
            os.kill(os.getpid(), signal.SIGKILL)
        return before(*args, **kwargs)

    setattr(owner, name, killed)
    recipe.run(load_config(recipe.SampleConfig, Path(config_file)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
