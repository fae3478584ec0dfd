"""Scores whose columns share prompts: one prompt counts in several columns.

Statistics calls such designs crossed. The overall is the mean of the columns' pooled means. The bootstrap redraws
prompts together with all their columns: columns that rise and fall together must not count as independent.
"""

from collections.abc import Sequence

import numpy as np

from thinkdraw.benchmarks.statistics import NUM_RESAMPLES, PromptVerdicts, Score, paired_difference, widened

_BLOCK = 500  # resamples held in memory at once


def is_crossed(verdicts: Sequence[PromptVerdicts]) -> bool:
    """Tell whether some prompt belongs to more than one task."""
    return len({row.prompt for row in verdicts}) < len(verdicts)


def crossed_score(verdicts: Sequence[PromptVerdicts], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Score:
    """Average the tasks' pooled means. The Score's `pictures` counts verdicts."""
    sums, counts, missing = _table(verdicts, *_axes(verdicts))
    value = _mean_of_tasks(sums.sum(0), counts.sum(0))
    draws = widened(_draws([(sums, counts)], seed, num_resamples)[0], value, len(sums), (0.0, 1.0), seed)
    return _score(value, draws, counts, missing)


def crossed_difference(
    a: Sequence[PromptVerdicts], b: Sequence[PromptVerdicts], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> Score:
    """Compute `crossed_score` of a minus that of b on the same prompts, paired.

    A prompt's task counts if both sides judged it. Raises ValueError if the prompts or tasks differ.
    """
    if [(row.task, row.prompt) for row in a] != [(row.task, row.prompt) for row in b]:
        raise ValueError("a paired difference needs the same prompts and tasks in the same order.")
    axes = _axes(a)
    (sums_a, counts_a, missing_a), (sums_b, counts_b, missing_b) = (_table(side, *axes) for side in (a, b))
    both = (counts_a > 0) & (counts_b > 0)
    sides = [(sums_a * both, counts_a * both), (sums_b * both, counts_b * both)]
    draws_a, draws_b = _draws(sides, seed, num_resamples)
    value_a, value_b = (_mean_of_tasks(sums.sum(0), counts.sum(0)) for sums, counts in sides)
    draws = widened(draws_a - draws_b, value_a - value_b, len(both), (-1.0, 1.0), seed)
    return _score(value_a - value_b, draws, sides[0][1] + sides[1][1], missing_a + missing_b)


def differences(a: Sequence[PromptVerdicts], b: Sequence[PromptVerdicts], *, seed: int = 0) -> dict[str, Score]:
    """Compute paired differences, a minus b, of the "overall" and of each task.

    Columns may share prompts or not. Raises ValueError if the prompts or tasks differ.
    """
    overall = crossed_difference if is_crossed(a) else paired_difference
    scores = {"overall": overall(a, b, seed=seed)}
    for task in dict.fromkeys(row.task for row in a):
        sides = [[row for row in side if row.task == task] for side in (a, b)]
        scores[task] = paired_difference(*sides, seed=seed)
    return scores


def _axes(verdicts: Sequence[PromptVerdicts]) -> tuple[dict[str, int], dict[str, int]]:
    if not verdicts:
        raise ValueError("no prompts: a score needs the verdicts of at least one prompt.")
    prompts = {prompt: i for i, prompt in enumerate(dict.fromkeys(row.prompt for row in verdicts))}
    return prompts, {task: i for i, task in enumerate(dict.fromkeys(row.task for row in verdicts))}


def _table(
    verdicts: Sequence[PromptVerdicts], prompts: dict[str, int], tasks: dict[str, int]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Sum up verdicts: (sums, counts), each (prompts, tasks), and the number of NaN."""
    sums, counts, missing = np.zeros((len(prompts), len(tasks))), np.zeros((len(prompts), len(tasks))), 0
    for row in verdicts:
        values = np.asarray(row.verdicts, dtype=np.float64)
        cell = prompts[row.prompt], tasks[row.task]
        sums[cell] += np.nansum(values)
        counts[cell] += np.count_nonzero(~np.isnan(values))
        missing += int(np.isnan(values).sum())
    return sums, counts, missing


def _mean_of_tasks(sums: np.ndarray, counts: np.ndarray) -> float:
    return float(np.mean(np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)))


def _draws(sides: Sequence[tuple[np.ndarray, np.ndarray]], seed: int, num_resamples: int) -> list[np.ndarray]:
    """Bootstrap the overall, (num_resamples,) per side, with the same redrawn prompts.

    A task without a verdict in a draw is left out of that draw's mean.
    """
    rng = np.random.default_rng(seed)
    num_prompts = len(sides[0][0])
    draws_of_sides: list[list[np.ndarray]] = [[] for _ in sides]
    for start in range(0, num_resamples, _BLOCK):
        size = min(_BLOCK, num_resamples - start)
        # How often each draw has each prompt: redrawing with replacement, as one matrix product.
        times = rng.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=size)
        for draws, (sums, counts) in zip(draws_of_sides, sides):
            sums_drawn, counts_drawn = times @ sums, times @ counts
            means = np.divide(sums_drawn, counts_drawn, out=np.full(sums_drawn.shape, np.nan), where=counts_drawn > 0)
            known = ~np.isnan(means)
            draws.append(
                np.divide(np.where(known, means, 0).sum(1), known.sum(1), out=np.full(size, np.nan), where=known.any(1))
            )
    return [np.concatenate(draws) for draws in draws_of_sides]


def _score(value: float, draws: np.ndarray, counts: np.ndarray, missing: int) -> Score:
    prompts = int((counts.sum(1) > 0).sum())
    known = prompts > 1 and not np.isnan(draws).all()  # one prompt says nothing of others
    low, high = np.nanpercentile(draws, (2.5, 97.5)) if known else (np.nan, np.nan)
    low, high = (min(float(low), value), max(float(high), value)) if known else (np.nan, np.nan)
    return Score(value, low, high, int(counts.sum()), prompts, missing)
