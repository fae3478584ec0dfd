"""Judged rollouts of a store in memory, and their log-probs before learning."""

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
from thinkdraw.training.known_tests import refuse_tests_in_store
from thinkdraw.training.world import World
from thinkdraw.types import Policy, Rollouts, Verdicts

logger = logging.getLogger(__name__)


def load_judged_rollouts(path: Path, judge: str, policy: Policy, *, own: bool = False) -> Batch:
    """Load all rollouts of a store with one judge's verdicts, in whole groups.

    own: also require that this very policy sampled them.
    Raises UserError for a store of another tokenizer, damaged or unscored shards, groups of one rollout or of different
    sizes, and published test prompts.
    """
    store = RolloutStore.open(path)
    store.check_policy(policy)
    if own:
        store.check_revision(policy.revision)
    shards = list(store.iter_groups(judge))
    if not shards:
        raise UserError(f"{path} is empty. Sample rollouts into it with `thinkdraw sample`.")
    sizes = {shard.rollouts.group_size for shard in shards}
    if len(sizes) > 1:
        raise UserError(f"{path} has groups of {sorted(sizes)} rollouts. Use a store with groups of one size.")
    rollouts = Rollouts.join([shard.rollouts for shard in shards], store.header.codec.pad_id)
    refuse_tests_in_store(path, rollouts.prompts)
    return Batch(rollouts, Verdicts.of(torch.cat([shard.scores for shard in shards])))


def sampling_cost(judged: Batch) -> dict[str, int]:
    """Compute what a ledger is charged for a store.

    It had to be sampled and judged, whoever did that.
    """
    return {
        "pictures_sampled": len(judged),
        "judge_calls": len(judged),
        "tokens_sampled": int(judged.rollouts.is_sampled().sum()),
    }


def store_input(path: Path, judge: str, judged: Batch) -> Input:
    """Describe a store as an input of a run: its rollouts and their scores."""
    rollouts = judged.rollouts
    content = [rollouts.tokens, rollouts.mask, rollouts.prompt_ids, judged.rewards, *map(row_of, rollouts.prompts)]
    return Input.of(f"{path} (scores {judge})", content, len(judged))


def log_probs_key(judged: Batch, rows: Tensor, base: str) -> str:
    """Hash what cached log-probs depend on, as far as a resumed run can tell.

    base: revision of the run's starting policy. The revision at the start of a later round would say more, but a resumed run
    has other weights by then and could not compute it again.
    """
    rollouts = judged.rollouts
    sampling = rollouts.sampling.model_dump(mode="json")
    return content_digest([rollouts.tokens, rollouts.mask, rollouts.prompt_ids, rows, sampling, base])


def with_cached_log_probs(
    open_before: Callable[[], Policy] | None, judged: Batch, rows: Tensor, micro_rows: int, world: World, cache: Path,
    made_of: str,
) -> Batch:  # fmt: skip
    """Add (B, T) log-probs of the policy before learning, from a cache or computed.

    Only `rows` have them; other rows have 0. They are computed in the trainer's geometry, as the loss will compute its own.
    They are cached in a file because a resumed run has other weights. Each process computes its share of the rows.
    open_before: gives the policy before learning; None if it has learned since, so that only the file has the numbers.
    made_of: see `log_probs_key`.
    Raises UserError if the file is needed and cannot be used.
    """
    if (known := _read_cache(cache, made_of, open_before is None)) is not None:
        return dataclasses.replace(judged, old_log_probs=known)
    if open_before is None:
        raise UserError(
            f"{cache} is missing, or of other rollouts than this run learns from. It cannot be computed again, because the "
            "policy has learned since. Restore the store and the run folder, or choose another out=."
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


def _read_cache(cache: Path, made_of: str, is_needed: bool) -> Tensor | None:
    """Read the cached log-probs; None if there are none, or only of other rollouts.

    is_needed: they cannot be computed again. Then a file of an older version counts too, which does not say what it was made
    of.
    """
    if not cache.is_file():
        return None
    try:
        tensors, told = read_tensors(cache)
    except ValueError as error:
        if is_needed:
            raise UserError(f"{cache} {error}. Restore it, or choose another out=.") from None
        logger.warning("%s %s: log-probs are computed again", cache, error)
        return None
    about = told.get(SOURCES_HASH)
    if about == made_of or (about is None and is_needed):
        return tensors["log_probs"]
    logger.warning("%s is of other rollouts, or does not say of which: log-probs are computed again", cache)
    return None
