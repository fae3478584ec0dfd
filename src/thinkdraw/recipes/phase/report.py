"""What a GRPO phase reports besides metrics: a few of its groups, and warnings."""

from collections.abc import Mapping

from thinkdraw.policies.check import fp32_limit
from thinkdraw.recipes.phase.config import GrpoConfig
from thinkdraw.recipes.phase.rollout_log import write_rollouts
from thinkdraw.training.batch import Batch
from thinkdraw.training.display import Display
from thinkdraw.training.observers.trackers import Picture
from thinkdraw.training.run import Run
from thinkdraw.types import Policy

BF16_RATIO_LIMIT = 1e-2  # for max |ratio − 1| at the first update of a phase; for fp32 see `fp32_limit`


def log_groups(run: Run[Policy], batch: Batch, num_groups: int) -> None:
    """Write the first groups of a phase to `rollouts/step_000010.parquet`."""
    if len(batch) == 0:
        return
    assert batch.advantages is not None and batch.verdicts is not None
    write_rollouts(
        run.path / "rollouts" / f"step_{run.step:06d}.parquet", run.step, batch.rollouts, batch.rewards,
        batch.advantages.values, dict(batch.verdicts.parts), num_groups, run.policy,
    )  # fmt: skip
    run.trackers.log_pictures(captioned(batch, num_groups), run.step)


def captioned(batch: Batch, num_groups: int) -> list[Picture]:
    """Collect the first groups' pictures with prompt, thought and reward."""
    rollouts, count = batch.rollouts, min(len(batch), num_groups * batch.group_size)
    assert rollouts.pictures is not None
    thoughts = rollouts.thoughts or ("",) * count
    return [
        Picture(
            rollouts.pictures[i].cpu().numpy(),
            f"{rollouts.prompts[i].text} | {thoughts[i]} | reward {float(batch.rewards[i]):.3g}",
        )
        for i in range(count)
    ]


def warn_of_trouble(display: Display, row: Mapping[str, float | None], flat_phases: int, config: GrpoConfig) -> None:
    """Warn of signs of trouble in a phase's row of metrics.jsonl, each once per run.

    flat_phases: latest phases in a row without reward variance in any group.
    """
    if flat_phases >= 3:
        display.warn(
            "variance",
            "three phases in a row without reward variance in any group: nothing can be learned. Is the reward constant, "
            "too hard or too easy?",
        )
    if row.get("grad_norm") == 0 and flat_phases == 0:
        display.warn(
            "gradient",
            "the gradient norm is 0 although rewards differ. Are all weights frozen, or text_weight and image_weight 0?",
        )
    deviation = row.get("ratio_max_deviation") or 0.0
    is_fp32 = config.precision == config.dtype == "fp32"
    limit = fp32_limit(config.sampling) if is_fp32 else BF16_RATIO_LIMIT
    if deviation > limit and config.old_log_probs == "sampled":
        display.warn(
            "ratio",
            f"max |ratio − 1| is {deviation:.2g} at the first update of a phase (limit {limit:.2g} in "
            f"{config.precision}): sampler and trainer disagree. With bf16 set old_log_probs=recomputed; in fp32 "
            "the policy has a bug: run `thinkdraw check`.",
        )
