"""What recipes that learn from a rollout store share: its judged rows in memory, and log-probs before learning."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.rollouts.store import RolloutStore
from thinkdraw.runtime.files import atomic_file
from thinkdraw.training.training import Team
from thinkdraw.types import Policy, Rollouts


@dataclass(frozen=True)
class Judged:
    """All rollouts of a store, whole groups in order, with one judge's scores (B,), NaN = no verdict."""

    rollouts: Rollouts
    scores: Tensor
    content_hash: str

    @property
    def group_size(self) -> int:
        return self.rollouts.group_size

    def cost(self) -> dict[str, int]:
        """What a ledger is told of a store: somebody sampled and judged it."""
        return {
            "pictures_sampled": len(self.scores),
            "judge_calls": len(self.scores),
            "tokens_sampled": int((self.rollouts.segment >= 0).sum()),
        }


def load_judged(path: Path, judge: str, policy: Policy, *, own: bool = False) -> Judged:
    """The store's rows as the policy can score them.

    own: also demand that this very policy sampled them. Raises UserError for a store of another tokenizer, damaged or
    unscored shards, groups of one rollout or of different sizes.
    """
    store = RolloutStore.open(path)
    store.check_policy(policy)
    if own:
        store.check_revision(policy.revision)
    parts = list(store.iter_groups(judge))
    if not parts:
        raise UserError(f"{path} is empty. Sample rollouts into it with `thinkdraw sample`.")
    sizes = {part.rollouts.group_size for part in parts}
    if len(sizes) > 1:
        raise UserError(f"{path} has groups of {sorted(sizes)} rollouts. Use a store with groups of one size.")
    rollouts = Rollouts.join([part.rollouts for part in parts], store.header.codec.pad_id)
    return Judged(rollouts, torch.cat([part.scores for part in parts]), store.info()["content_hash"])


def log_probs_before(
    policy: Policy, rollouts: Rollouts, rows: Tensor, micro_rows: int, team: Team, cache: Path
) -> Tensor:
    """(B, T) log-probs of the policy as it is now, in training geometry, for `rows`; 0 elsewhere.

    Kept in the file `cache`, because a run that goes on later has other weights. Each process does its part.
    """
    if cache.is_file():
        return load_file(cache)["log_probs"]
    found = torch.zeros_like(rollouts.log_probs)
    mine = team.share(len(rows))
    for chosen in rows[mine.start : mine.stop].split(micro_rows):
        micro = rollouts.select(chosen)
        with torch.no_grad():
            found[chosen, : micro.tokens.shape[1]] = policy.log_probs(micro).log_probs.cpu()
    found = team.reduce(found)
    if team.is_main:
        with atomic_file(cache) as temporary:
            save_file({"log_probs": found}, temporary)
    team.wait()
    return found
