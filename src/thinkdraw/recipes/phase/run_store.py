"""`RUN/store`: the rollouts and rewards that a run learned from."""

import re
from pathlib import Path

from thinkdraw.policies.opening import policy_path
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.rollouts import RolloutStore
from thinkdraw.rollouts.scores import Judge
from thinkdraw.training.batch import Batch
from thinkdraw.training.run import Run
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Reward, ThoughtFormat


class RunStore:
    """The rollout store of a run, with the optimised reward's scores.

    Groups that a refill replaced are not in it: the run did not learn from them.
    decodes: name of a policy with the run's picture tokenizer, for readers who decode the pictures again.
    num_shards: shards that the run's checkpoint counts. Later shards are dropped: they come from phases after that
    checkpoint, which the run samples again.
    """

    def __init__(
        self,
        path: Path,
        policy: Policy,
        thought: ThoughtFormat,
        judge: Judge,
        decodes: str,
        num_shards: int,
        world: World,
    ) -> None:
        self.path, self.decodes, self.world = path, decodes, world
        # A column of scores is a folder, so its name may only have characters of a file name.
        self.column = re.sub(r"[^A-Za-z0-9._-]", "-", judge.reward).lstrip(".-")
        if world.is_main:
            exists = (path / "store.json").exists()
            store = RolloutStore.open(path) if exists else RolloutStore.create(path, policy, thought)
            store.check_policy(policy)
            store.drop_after(num_shards)
            store.add_judge(self.column, judge)
        world.wait()
        self.store = RolloutStore.open(path)

    @classmethod
    def of(cls, run: Run[Policy], reward: Reward, config: GrpoConfig, num_shards: int) -> "RunStore":
        """Open the store of a GRPO run, or create it."""
        judge = Judge(reward=reward.name, settings=config.reward.settings, revision=reward.revision)
        decodes = policy_path(config.policy)
        return cls(run.path / "store", run.policy, config.sampling.thought, judge, decodes, num_shards, run.world)

    def append(self, batch: Batch) -> int:
        """Write one shard per process.

        The processes write one after the other, so that equal runs write equal stores.
        Returns the number of shards in the store.
        """
        for rank in range(self.world.size):
            if rank == self.world.rank and len(batch) and batch.verdicts is not None:
                self.store.append(
                    batch.rollouts.to("cpu"), {self.column: batch.rewards}, self.decodes,
                    components={self.column: batch.verdicts.parts},
                )  # fmt: skip
            self.world.wait()
        return self.store.num_shards
