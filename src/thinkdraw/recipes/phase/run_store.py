"""`RUN/store`: every rollout that a run learned from, with its reward, for other recipes to learn from once more."""

import re
from collections.abc import Sequence
from pathlib import Path

from thinkdraw.recipes.phase.advantages import Part
from thinkdraw.rollouts import RolloutStore
from thinkdraw.rollouts.scores import Judge
from thinkdraw.training.training import Team
from thinkdraw.types import Policy, ThoughtFormat


class RunStore:
    """Groups that a refill replaced are not in it. decodes: a checkpoint with the run's picture tokenizer.

    num_shards: how many a checkpoint knows of; those after it are of phases that will be sampled again, and are dropped.
    """

    def __init__(
        self, path: Path, policy: Policy, thought: ThoughtFormat, judge: Judge, decodes: str, num_shards: int,
        team: Team,
    ) -> None:  # fmt: skip
        self.path, self.decodes, self.team = path, decodes, team
        # A column of scores is a folder, so its name has to be a file's.
        self.column = re.sub(r"[^A-Za-z0-9._-]", "-", judge.reward).lstrip(".-")
        if team.is_main:
            exists = (path / "store.json").exists()
            store = RolloutStore.open(path) if exists else RolloutStore.create(path, policy, thought)
            store.check_policy(policy)
            store.drop_after(num_shards)
            store.add_judge(self.column, judge)
        team.wait()
        self.store = RolloutStore.open(path)

    def append(self, parts: Sequence[Part]) -> None:
        """A shard per part, the processes one after the other, so that the same run writes the same store."""
        for rank in range(self.team.size):
            for part in parts if rank == self.team.rank else ():
                self.store.append(
                    part.rollouts.to("cpu"), {self.column: part.rewards}, self.decodes,
                    components={self.column: part.components},
                )  # fmt: skip
            self.team.wait()

    @property
    def num_shards(self) -> int:
        return self.store.num_shards
