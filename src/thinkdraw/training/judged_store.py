"""What recipes that learn from a rollout store share: its judged rows in memory, and log-probs before learning."""

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from thinkdraw.errors import UserError
from thinkdraw.rollouts.store import RolloutStore
from thinkdraw.runtime.files import atomic_file
from thinkdraw.training.batch import Batch
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Rollouts, Verdicts


def load_judged(path: Path, judge: str, policy: Policy, *, own: bool = False) -> Batch:
    """All rollouts of a store as the policy can score them, whole groups in order, with one judge's verdicts.

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
    return Batch(rollouts, Verdicts.of(torch.cat([part.scores for part in parts])))


def sampling_cost(judged: Batch) -> dict[str, int]:
    """What a ledger is charged for a store: it had to be sampled and judged, whoever did it."""
    return {
        "pictures_sampled": len(judged),
        "judge_calls": len(judged),
        "tokens_sampled": int(judged.rollouts.is_sampled().sum()),
    }


def with_log_probs_before(
    policy: Policy, judged: Batch, rows: Tensor, micro_rows: int, world: World, cache: Path
) -> Batch:
    """The batch with (B, T) log-probs of the policy as it is now, in training geometry, for `rows`; 0 elsewhere.

    Kept in the file `cache`, because a run that goes on later has other weights. Each process does its part.
    """
    if cache.is_file():
        return dataclasses.replace(judged, old_log_probs=load_file(cache)["log_probs"])
    log_probs = torch.zeros_like(judged.rollouts.log_probs)
    mine = world.share(len(rows))
    for chosen in rows[mine.start : mine.stop].split(micro_rows):
        micro = judged.rollouts.select(chosen)
        with torch.no_grad():
            log_probs[chosen, : micro.tokens.shape[1]] = policy.log_probs(micro).log_probs.cpu()
    log_probs = world.reduce(log_probs)
    if world.is_main:
        with atomic_file(cache) as temporary:
            save_file({"log_probs": log_probs}, temporary)
    world.wait()
    return dataclasses.replace(judged, old_log_probs=log_probs)
