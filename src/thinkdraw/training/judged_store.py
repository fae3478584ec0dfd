"""What recipes that learn from a rollout store share: its judged rows in memory, and log-probs before learning."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from thinkdraw.data.prompt_files import row_of
from thinkdraw.errors import UserError
from thinkdraw.rollouts.store import RolloutStore
from thinkdraw.runtime.inputs.hashing import SOURCES_HASH, content_digest
from thinkdraw.runtime.inputs.run_inputs import Input
from thinkdraw.runtime.inputs.tensor_files import read_tensors, write_tensors
from thinkdraw.training.batch import Batch, split_rows
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Rollouts, Verdicts

logger = logging.getLogger(__name__)


def load_judged_rollouts(path: Path, judge: str, policy: Policy, *, own: bool = False) -> Batch:
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


def store_input(path: Path, judge: str, judged: Batch) -> Input:
    """What a run notes of a store: the rollouts and the scores that it was given."""
    rollouts = judged.rollouts
    content = [rollouts.tokens, rollouts.mask, rollouts.prompt_ids, judged.rewards, *map(row_of, rollouts.prompts)]
    return Input.of(f"{path} (scores {judge})", content, len(judged))


def log_probs_key(judged: Batch, rows: Tensor, base: str) -> str:
    """What log-probs from before are made of, as far as a run that goes on can still tell.

    base: revision of the policy that the run began with; the one of the round has moved on.
    """
    rollouts = judged.rollouts
    sampling = rollouts.sampling.model_dump(mode="json")
    return content_digest([rollouts.tokens, rollouts.mask, rollouts.prompt_ids, rows, sampling, base])


def with_cached_log_probs(
    open_before: Callable[[], Policy] | None, judged: Batch, rows: Tensor, micro_rows: int, world: World, cache: Path,
    made_of: str,
) -> Batch:  # fmt: skip
    """The batch with (B, T) log-probs of the policy before learning, in training geometry, for `rows`; 0 elsewhere.

    Kept in the file `cache`, because a run that goes on later has other weights. Each process does its part.
    open_before: gives that policy; None where nothing but the file has its numbers. made_of: see `log_probs_key`.
    Raises UserError where they are needed and gone.
    """
    if (known := _kept(cache, made_of, open_before is None)) is not None:
        return dataclasses.replace(judged, old_log_probs=known)
    if open_before is None:
        raise UserError(
            f"{cache} is not there, or not of the rollouts that this run learns from, and the policy that made it has "
            "learned since. Put back store and folder as they were, or choose another out=."
        )
    policy = open_before()
    log_probs = torch.zeros_like(judged.rollouts.log_probs)
    mine = world.share(len(rows))
    for chosen in split_rows(rows[mine.start : mine.stop], micro_rows):
        micro = judged.rollouts.select(chosen)
        with torch.no_grad():
            log_probs[chosen, : micro.tokens.shape[1]] = policy.log_probs(micro).log_probs.cpu()
    log_probs = world.reduce(log_probs)
    if world.is_main:
        write_tensors(cache, {"log_probs": log_probs}, {SOURCES_HASH: made_of})
    world.wait()
    return dataclasses.replace(judged, old_log_probs=log_probs)


def _kept(cache: Path, made_of: str, is_needed: bool) -> Tensor | None:
    """The log-probs in the file, None where they are not there or of other rollouts.

    is_needed: nobody can make them anew, so that those of an older version, which do not say what they were made of, count.
    """
    if not cache.is_file():
        return None
    try:
        tensors, told = read_tensors(cache)
    except ValueError as error:
        if is_needed:
            raise UserError(f"{cache} {error}. Restore it, or choose another out=.") from None
        logger.warning("%s %s: computed anew", cache, error)
        return None
    about = told.get(SOURCES_HASH)
    if about == made_of or (about is None and is_needed):
        return tensors["log_probs"]
    logger.warning("%s is of other rollouts, or does not say of which: computed anew", cache)
    return None
