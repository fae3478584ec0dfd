"""Add a judge's scores to a rollout store.

    thinkdraw score runs/store lab-detector

Pictures are decoded from their tokens, and each rollout is scored once. The scores of a shard are written together; a run
that was stopped goes on with the shards that have none.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field
from torch import Tensor

from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError
from thinkdraw.policies.opening import load_trained
from thinkdraw.rewards.opening import RewardSettings, open_reward
from thinkdraw.rewards.revision import judges_and_code_revision
from thinkdraw.rewards.user_rewards import as_reward
from thinkdraw.rollouts import Judge, RolloutStore, StoredShard
from thinkdraw.runtime.device import pick_device, set_threads
from thinkdraw.runtime.files import only_writer
from thinkdraw.training.display import Display
from thinkdraw.types import Policy, Reward, Verdicts


class ScoreConfig(StrictModel):
    """Settings of scoring a rollout store."""

    recipe: Literal["score"] = Field(
        default="score", description="Names the recipe that this configuration is for; always `score`."
    )
    store: Path = Field(default=Path("runs/store"), description="Folder of the rollout store that gets the scores.")
    reward: RewardSettings = Field(
        default=RewardSettings(), description="The reward that scores the rollouts: its name and what it is made with."
    )
    name: str | None = Field(
        default=None, description="Name that the scores have in the store; null is the reward's own."
    )
    policy: str | None = Field(
        default=None,
        description="Checkpoint that decodes the image tokens into pictures; null is the one that drew them.",
    )
    chunk: int = Field(
        default=256,
        ge=1,
        description="Pictures decoded and judged at once, rounded down to whole groups. Smaller needs less memory.",
    )
    skip_damaged: bool = Field(
        default=False, description="Leave damaged shards out and score the rest; false stops at the first one."
    )
    device: str = Field(
        default="auto",
        description="Where the network runs: auto, cpu, cuda or mps. auto takes an accelerator where there is one.",
    )
    num_threads: int | None = Field(
        default=None, ge=1, description="CPU threads that torch uses; null follows OMP_NUM_THREADS."
    )
    log_every: int = Field(
        default=1,
        ge=1,
        description="Shards per printed line where the output is no terminal; a terminal shows a progress bar.",
    )


def run(config: ScoreConfig, reward: Reward | None = None) -> Path:
    """Score what has no scores yet, and return the store's folder.

    reward: replaces the one that the config names.
    Raises UserError, also if the store has scores of that name by another judge.
    """
    set_threads(config.num_threads)
    store = RolloutStore.open(config.store)
    reward = as_reward(reward) if reward else open_reward(config.reward.name, **config.reward.settings)
    name = config.name or reward.name
    column = store.add_judge(name, judge_of(reward, config.reward))
    decoder = StoreDecoder(store, config.policy, config.device)
    with only_writer(column.folder), Display("score", store.num_shards, config.log_every) as display:
        for index, scores in score_missing(store, name, reward, decoder.policy, config.chunk, config.skip_damaged):
            display.show(index + 1, display_row(name, scores), (name, "no_verdict_frac"))
    return config.store


def score_missing(
    store: RolloutStore, name: str, reward: Reward, policy_of: Callable[[StoredShard], Policy], chunk: int = 256,
    skip_damaged: bool = False,
) -> Iterator[tuple[int, Tensor]]:  # fmt: skip
    """Score the shards that have no scores called `name`.

    Yields (index, scores (B,)) of each shard once they are on disk.
    Raises UserError if another process scores them at the same time.
    """
    column = store.column(name)
    missing = [index for index in range(store.num_shards) if not column.has(index)]
    readable = dict(store.footers(skip_damaged=True)) if skip_damaged else missing
    for index in missing:
        if index not in readable:
            continue
        shard = store.read_shard(index)
        rollouts, policy, size = shard.rollouts(), policy_of(shard), shard.footer.group_size
        step = max(1, chunk // size) * size  # whole groups, since a reward may compare the rollouts of one
        replies = []
        for begin in range(0, len(rollouts), step):
            groups = rollouts.select(range(begin, min(begin + step, len(rollouts))), size).to(policy.device)
            pictures = policy.decode_tokens(groups.image_tokens())
            replies.append(reward(dataclasses.replace(groups, pictures=pictures)))
        verdicts = Verdicts.join(replies)
        column.write(index, shard.footer, verdicts.rewards, verdicts.parts)
        yield index, verdicts.rewards


def judge_of(reward: Reward, settings: RewardSettings) -> Judge:
    """Describe a column's judge, with a hash of everything that decides its verdicts."""
    return Judge(reward=settings.name, settings=settings.settings, revision=judges_and_code_revision(reward))


def display_row(name: str, scores: Tensor) -> dict[str, float | None]:
    """Make the display's columns of some scores.

    These are the mean, and the share without a verdict if there is any.
    """
    missing = scores.isnan()
    mean = None if bool(missing.all()) else float(scores.nanmean())
    return {name: mean, "no_verdict_frac": float(missing.float().mean()) or None}


class StoreDecoder:
    """Decodes the pictures of a store's rollouts, in the store's precision.

    policy: decodes all pictures; None: the policy that drew them, as each shard names it.
    """

    def __init__(self, store: RolloutStore, policy: str | None = None, device: str = "auto") -> None:
        self.store, self.named_policy, self.device = store, policy, str(pick_device(device))
        self._loaded: tuple[str, Policy] | None = None

    def policy(self, shard: StoredShard) -> Policy:
        """Open the policy that decodes a shard.

        Raises UserError for a missing checkpoint, or one with another picture tokenizer.
        """
        path = self.named_policy or shard.footer.policy
        if self._loaded is None or self._loaded[0] != path:
            try:
                policy = load_trained(path, device=self.device, precision=self.store.header.precision)
            except UserError as error:
                raise UserError(
                    f"row {shard.footer.first_row} cannot be decoded: {error} Or name another checkpoint: policy=CKPT."
                ) from error
            self.store.check_policy(policy)
            self._loaded = path, policy
        return self._loaded[1]

    def pictures(self, shard: StoredShard) -> Tensor:
        """Decode the pictures of a shard: (B, H, W, 3) uint8."""
        return self.policy(shard).decode_tokens(shard.rollouts().image_tokens())
