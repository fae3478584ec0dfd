"""Columns of metrics.jsonl about a phase's rollouts, over all processes."""

import math

from torch import Tensor

from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.training.batch import Batch
from thinkdraw.training.world import World
from thinkdraw.types import Verdicts


def phase_stats(batch: Batch, verdicts: Verdicts, config: GrpoConfig, world: World) -> dict[str, float | None]:
    """Compute a phase's columns of metrics.jsonl, over all processes.

    A column is None where nothing has a verdict.
    batch: what is learned from. verdicts: of all that was sampled, replaced groups included: reward_mean, reward_std and
    no_verdict_frac are theirs, so that a refill does not flatter them.
    """
    advantages, rollouts = batch.advantages, batch.rollouts
    assert advantages is not None and batch.verdicts is not None
    names = sorted({name for theirs in world.gather(list(batch.verdicts.parts)) for name in theirs})
    # Sums first, then one all-reduce, then means. Every process has the same names in the same order, since the all-reduce
    # adds by position.
    sums: dict[str, float] = dict.fromkeys(("rows", "missing", "trained_rows", "groups", "flat", "text", "forced"), 0.0)
    sums |= {
        f"{name}/{what}": 0.0
        for name in ("reward", "trained", "advantage", *(f"component {n}" for n in names))
        for what in ("sum", "squares", "count")
    }

    def add(name: str, values: Tensor) -> None:
        values = values[~values.isnan()].double()
        for what, value in (("sum", values.sum()), ("squares", values.square().sum()), ("count", len(values))):
            sums[f"{name}/{what}"] += float(value)

    add("reward", verdicts.rewards)
    sums["rows"], sums["missing"] = len(verdicts), float(verdicts.missing.sum())
    add("trained", batch.rewards)
    add("advantage", advantages.values[advantages.valid])
    for name, values in batch.verdicts.parts.items():
        add(f"component {name}", values)
    text = ~rollouts.is_image & (rollouts.segment >= 0)
    sums["groups"], sums["flat"] = len(advantages.zero_variance), advantages.num_zero_variance_groups
    sums["text"], sums["forced"] = float(text.sum()), float(rollouts.text_was_cut().sum())
    sums["trained_rows"] = len(text)
    totals = world.sum(sums)  # over all processes

    def mean_std(name: str) -> tuple[float | None, float | None]:
        count = totals[f"{name}/count"]
        if count == 0:
            return None, None
        mean = totals[f"{name}/sum"] / count
        # Rounding can make the variance of equal values a little negative.
        return mean, math.sqrt(max(0.0, totals[f"{name}/squares"] / count - mean**2))

    row: dict[str, float | None] = dict(zip(("reward_mean", "reward_std"), mean_std("reward")))
    if config.refill_rounds:
        row["reward_mean_trained"] = mean_std("trained")[0]
    row |= {f"reward/{name}": mean_std(f"component {name}")[0] for name in names}
    row |= {"advantage_std": mean_std("advantage")[1], "zero_variance_frac": totals["flat"] / totals["groups"]}
    row["no_verdict_frac"] = totals["missing"] / totals["rows"]
    return row | {
        "thought_tokens_mean": totals["text"] / totals["trained_rows"],
        "thought_forced_frac": totals["forced"] / totals["trained_rows"],
    }
