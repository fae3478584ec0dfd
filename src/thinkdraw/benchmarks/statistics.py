"""Scores with 95 % intervals that respect how benchmarks are built.

Pictures belong to prompts, and prompts to tasks. Pictures of one prompt are not independent, so the bootstrap redraws
prompts. It does so within each task, because the tasks of a benchmark are fixed. Prompts that all agree leave the
bootstrap nothing to redraw: the interval is then what so few prompts can exclude, and unknown (NaN) for a single one.
A missing verdict is NaN: it is counted, shown and left out, and never becomes 0.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit

NUM_RESAMPLES = 10_000
_PERCENTILES = (2.5, 97.5)
_BLOCK_DRAWS = 4_000_000  # draws held in memory at once


@dataclass(frozen=True)
class Score:
    """A number with its 95 % interval.

    pictures: pictures with a verdict. prompts: prompts with at least one verdict.
    num_no_verdict: pictures without a verdict, left out of the value.
    value, low and high are NaN where a task has no verdict at all. low and high alone are NaN where the interval is not
    known: from one prompt, or from equal numbers without a known range.
    """

    value: float
    low: float
    high: float
    pictures: int
    prompts: int
    num_no_verdict: int = 0

    def __str__(self) -> str:
        missing = f", {self.num_no_verdict} without verdict" if self.num_no_verdict else ""
        interval = "interval not known" if math.isnan(self.low) else f"[{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f} {interval} ({self.pictures} pictures, {self.prompts} prompts{missing})"


class PromptVerdicts(NamedTuple):
    """Verdicts on the pictures of one prompt, each in [0, 1] or NaN.

    A plain (task, verdicts) pair works as well.
    """

    task: str
    verdicts: Sequence[float]
    prompt: str = ""


Rows = Sequence[PromptVerdicts | tuple[str, Sequence[float]]]


def task_mean_score(correct_by_prompt: Rows, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Score:
    """Average the task scores, unweighted; each is the mean over the task's pictures.

    Interval: percentile bootstrap over prompts, stratified by task.
    """
    tasks = _by_task(correct_by_prompt)
    means = [_pooled_mean(sums, counts) for sums, counts, _ in tasks.values()]
    draws = [_score_draws(name, task, seed, num_resamples) for name, task in tasks.items()]
    totals = np.sum([_totals(*task) for task in tasks.values()], axis=0)
    return _score(float(np.mean(means)), np.mean(draws, axis=0), totals)


def prompt_mean_score(verdicts: Rows, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Score:
    """Compute `task_mean_score` where each prompt counts once, by its pictures' mean.

    It counts once however many of its pictures have a verdict.
    """
    rows = _rows(verdicts)
    score = task_mean_score(
        [row._replace(verdicts=[_mean(row.verdicts)]) for row in rows], seed=seed, num_resamples=num_resamples
    )
    pictures, _, num_no_verdict = np.sum([_totals(*task) for task in _by_task(rows).values()], axis=0)
    return replace(score, pictures=int(pictures), num_no_verdict=int(num_no_verdict))


def per_task(correct_by_prompt: Rows, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> dict[str, Score]:
    """Score each task, in order of appearance.

    A task's interval does not depend on the other tasks.
    """
    return {
        name: _score(_pooled_mean(*task[:2]), _score_draws(name, task, seed, num_resamples), _totals(*task))
        for name, task in _by_task(correct_by_prompt).items()
    }


def paired_difference(a: Rows, b: Rows, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Score:
    """Compute `task_mean_score` of a minus that of b on the same prompts.

    Interval: paired bootstrap over prompts, stratified by task.
    a, b: the same prompts in the same order; numbers of pictures may differ. A prompt counts if both sides have a
    verdict on it. pictures and num_no_verdict add up both sides. Raises ValueError if the prompts differ.
    """
    return _score(*_paired(_rows(a), _rows(b), seed, num_resamples))


def score_over_seeds(seeds: Sequence[Rows], *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Score:
    """Compute `task_mean_score` of a recipe trained with several seeds.

    seeds: a list of prompts for each training seed. The interval is over prompts and seeds, as in
    `difference_over_seeds`; with one seed it is `task_mean_score`'s.
    """
    pooled = _pooled(seeds)
    score = task_mean_score(pooled, seed=seed, num_resamples=num_resamples)
    if len(seeds) == 1:
        return score
    draws = np.mean([_score_draws(name, t, seed, num_resamples) for name, t in _by_task(pooled).items()], axis=0)
    return _over_seeds(score, draws, [_seed_means(seeds)])


def difference_over_seeds(
    a: Sequence[Rows], b: Sequence[Rows], *, paired_seeds: bool = False, seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Score:  # fmt: skip
    """Compute `paired_difference` of policies trained with several seeds.

    The interval is over prompts and seeds. a, b: a list of prompts for each training seed. The value is of all seeds'
    pictures together.
    Two variances add up: the bootstrap's over prompts, and that between training seeds. Three seeds say little about
    their spread, hence Student's t with the degrees of freedom of Welch and Satterthwaite (Welch 1947, The
    generalization of Student's problem).
    paired_seeds: the i-th seed of a and b is the same, so what they share (a store, an order of prompts) cancels: the
    variance is that of the seeds' differences. Else each side has its own, divided by its number. A side of one seed
    adds no variance, because nobody knows what another seed would give.
    Raises ValueError for paired seeds that differ in number.
    """
    if paired_seeds and len(a) != len(b):
        raise ValueError(f"paired_seeds: a has {len(a)} training seeds and b has {len(b)}. Pair equal numbers.")
    value, draws, totals = _paired(_pooled(a), _pooled(b), seed, num_resamples)
    means = [_seed_means(side) for side in (a, b)]
    sides = [means[0] - means[1]] if paired_seeds else means
    return _over_seeds(_score(value, draws, totals), draws, sides)


def _over_seeds(score: Score, draws: np.ndarray, sides: Sequence[np.ndarray]) -> Score:
    """Widen a score's interval by the variance between training seeds.

    draws: the bootstrap over prompts. sides: a number per seed; those of one seed are left out.
    """
    if score.prompts == 1:  # nobody knows the spread over prompts
        return score
    # (variance, degrees of freedom) of each source
    variances = [(float(np.var(draws)), score.prompts - 1)]
    variances += [(float(np.var(side, ddof=1)) / len(side), len(side) - 1) for side in sides if len(side) > 1]
    total = sum(variance for variance, _ in variances)
    if not total > 0:  # NaN: a task without a verdict, or equal numbers without a known range
        return replace(score, low=math.nan, high=math.nan)
    freedom = total**2 / sum(variance**2 / freedom for variance, freedom in variances)
    half = float(stdtrit(freedom, 0.975)) * math.sqrt(total)
    return replace(score, low=score.value - half, high=score.value + half)


def _seed_means(seeds: Sequence[Rows]) -> np.ndarray:
    """Compute the score of each training seed: (S,)."""
    return np.array([np.mean([_pooled_mean(*task[:2]) for task in _by_task(rows).values()]) for rows in seeds])


def mean_interval(values: Sequence[float] | np.ndarray, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Score:
    """Average values, one per prompt, with a percentile bootstrap interval.

    NaN = no verdict. The values have no known range, so equal ones have no known interval.
    """
    score = task_mean_score([("", [value]) for value in values], seed=seed, num_resamples=num_resamples)
    return replace(score, low=math.nan, high=math.nan) if len(set(values)) == 1 else score


def auroc(labels: Sequence[float] | np.ndarray, scores: Sequence[float] | np.ndarray) -> float:
    """Compute the probability that a positive scores above a negative.

    Ties count one half; NaN if either kind is absent. labels: 0/1 or bool. scores: any real numbers. A pair with a
    NaN in it is left out, so report how many there are.
    """
    label, score = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if label.shape != score.shape:
        raise ValueError(f"labels {label.shape} and scores {score.shape} must have the same shape.")
    judged = ~(np.isnan(label) | np.isnan(score))
    positive, score = label[judged] > 0.5, score[judged]
    num_positive = int(positive.sum())
    num_negative = positive.size - num_positive
    if num_positive == 0 or num_negative == 0:
        return math.nan
    # The Mann–Whitney U statistic from mean ranks, which count ties one half.
    _, which, counts = np.unique(score, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    wins = mean_rank[which][positive].sum() - num_positive * (num_positive + 1) / 2
    return float(wins / (num_positive * num_negative))


def wilson(successes: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Compute Wilson's interval of a share of independent trials, 95 % by default.

    (0, 1) without any trial.
    """
    if not 0 <= successes <= total:
        raise ValueError(f"successes={successes} must lie between 0 and total={total}.")
    if total == 0:
        return 0.0, 1.0
    share, shrink = successes / total, 1 + z * z / total
    center = (share + z * z / (2 * total)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # Exactly 0 and 1 at the ends, where rounding would give 1e-17 or so.
    low = 0.0 if successes == 0 else center - half
    return low, 1.0 if successes == total else center + half


def _pooled(seeds: Sequence[Rows]) -> list[PromptVerdicts]:
    """Pool all seeds' verdicts of each prompt.

    Raises ValueError if the prompts differ.
    """
    first, *others = (_rows(rows) for rows in seeds)
    for rows in others:
        _refuse_other_prompts(first, rows)
    return [
        same[0]._replace(verdicts=[verdict for row in same for verdict in row.verdicts])
        for same in zip(first, *others, strict=True)
    ]


def _paired(
    rows_a: Sequence[PromptVerdicts], rows_b: Sequence[PromptVerdicts], seed: int, num_resamples: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Compute the difference, its bootstrap draws (num_resamples,) and totals."""
    _refuse_other_prompts(rows_a, rows_b)
    tasks_a, tasks_b = _by_task(rows_a), _by_task(rows_b)
    values, draws, totals = [], [], np.zeros(3, dtype=np.int64)
    for name, (sums_a, counts_a, missing_a) in tasks_a.items():
        sums_b, counts_b, missing_b = tasks_b[name]
        both = (counts_a > 0) & (counts_b > 0)
        pair = [(sums_a[both], counts_a[both]), (sums_b[both], counts_b[both])]
        draw_a, draw_b = _resample(name, pair, seed, num_resamples)
        values.append(_pooled_mean(*pair[0]) - _pooled_mean(*pair[1]))
        bounds = (-1.0, 1.0) if _in_unit(*pair[0]) and _in_unit(*pair[1]) else None
        draws.append(widened(draw_a - draw_b, values[-1], int(both.sum()), bounds, seed, name))
        totals += [pair[0][1].sum() + pair[1][1].sum(), both.sum(), missing_a + missing_b]
    return float(np.mean(values)), np.mean(draws, axis=0), totals


def widened(
    draws: np.ndarray, value: float, num_prompts: int, bounds: tuple[float, float] | None, seed: int, name: str = ""
) -> np.ndarray:
    """Return bootstrap draws, or, where all are equal, draws of what may yet come.

    All prompts agreed on `value`, so redrawing them shows no spread. That does not say that every prompt would agree:
    shares U and D of the prompts may be at the upper or the lower bound. Both have the posterior Beta(1/2, n + 1/2) of an
    event not seen in n prompts under Jeffreys' prior (Brown, Cai and DasGupta 2001, Interval estimation for a binomial
    proportion). With n = 12 all right the lower bound is .81.
    bounds: lowest and highest value of a prompt; None = not known, which makes the draws NaN. name: of the task; tasks
        draw on their own.
    """
    if not np.ptp(draws) <= 1e-12:  # they differ, or are NaN
        return draws
    if bounds is None:
        return np.full_like(draws, math.nan)
    rng = np.random.default_rng([seed, num_prompts, zlib.crc32(name.encode())])
    up, down = rng.beta(0.5, num_prompts + 0.5, size=(2, len(draws)))
    return value + (bounds[1] - value) * up - (value - bounds[0]) * down


def _score_draws(name: str, task: tuple[np.ndarray, np.ndarray, int], seed: int, num_resamples: int) -> np.ndarray:
    """Draw a task's pooled mean, (num_resamples,)."""
    sums, counts = task[:2]
    draws = _resample(name, [(sums, counts)], seed, num_resamples)[0]
    bounds = (0.0, 1.0) if _in_unit(sums, counts) else None
    return widened(draws, _pooled_mean(sums, counts), int(np.count_nonzero(counts)), bounds, seed, name)


def _in_unit(sums: np.ndarray, counts: np.ndarray) -> bool:
    """Tell whether each prompt's mean verdict lies in [0, 1]."""
    return bool(((sums >= 0) & (sums <= counts)).all())


def _refuse_other_prompts(rows_a: Sequence[PromptVerdicts], rows_b: Sequence[PromptVerdicts]) -> None:
    if [(row.task, row.prompt) for row in rows_a] != [(row.task, row.prompt) for row in rows_b]:
        raise ValueError(
            f"a has {len(rows_a)} prompts and b has {len(rows_b)}: a paired difference needs the same prompts and "
            "tasks in the same order. Sort both by prompt, or compare two task_mean_score values."
        )


def _rows(rows: Rows) -> list[PromptVerdicts]:
    if len(rows) == 0:
        raise ValueError("no prompts: a score needs the verdicts of at least one prompt.")
    return [row if isinstance(row, PromptVerdicts) else PromptVerdicts(row[0], row[1]) for row in rows]


def _by_task(rows: Rows) -> dict[str, tuple[np.ndarray, np.ndarray, int]]:
    """Map task → (sum of verdicts per prompt, verdicts per prompt, number of NaN)."""
    verdicts: dict[str, list[np.ndarray]] = {}
    for row in _rows(rows):
        verdicts.setdefault(row.task, []).append(np.asarray(row.verdicts, dtype=np.float64).reshape(-1))
    return {
        task: (
            np.array([np.nansum(v) for v in prompts]),
            np.array([np.count_nonzero(~np.isnan(v)) for v in prompts]),
            sum(int(np.isnan(v).sum()) for v in prompts),
        )
        for task, prompts in verdicts.items()
    }


def _pooled_mean(sums: np.ndarray, counts: np.ndarray) -> float:
    return float(sums.sum() / counts.sum()) if counts.sum() else math.nan


def _mean(verdicts: Sequence[float]) -> float:
    judged = [v for v in verdicts if not math.isnan(v)]
    return math.fsum(judged) / len(judged) if judged else math.nan


def _totals(sums: np.ndarray, counts: np.ndarray, num_no_verdict: int) -> np.ndarray:
    return np.array([counts.sum(), np.count_nonzero(counts), num_no_verdict])


def _resample(
    task: str, sides: Sequence[tuple[np.ndarray, np.ndarray]], seed: int, num_resamples: int
) -> list[np.ndarray]:
    """Bootstrap pooled means, (num_resamples,) per side, with the same draws for all."""
    # Only prompts that all sides have a verdict on. With the same draws the prompts' difficulty cancels in a difference.
    judged = np.flatnonzero(np.all([counts > 0 for _, counts in sides], axis=0))
    means = [np.full(num_resamples, math.nan) for _ in sides]
    if judged.size == 0:
        return means
    rng = np.random.default_rng([seed, zlib.crc32(task.encode())])  # a task's draws do not depend on the other tasks
    block = max(1, _BLOCK_DRAWS // judged.size)
    for start in range(0, num_resamples, block):
        stop = min(start + block, num_resamples)
        drawn = judged[rng.integers(judged.size, size=(stop - start, judged.size))]
        for mean, (sums, counts) in zip(means, sides, strict=True):
            mean[start:stop] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return means


def _score(value: float, draws: np.ndarray, totals: np.ndarray) -> Score:
    pictures, prompts, num_no_verdict = (int(total) for total in totals)
    if prompts == 1:  # says nothing of others
        return Score(value, math.nan, math.nan, pictures, prompts, num_no_verdict)
    low, high = np.percentile(draws, _PERCENTILES)
    # Draws of what may yet come lie on one side of a value at its bound, as Jeffreys' interval does.
    low, high = min(float(low), value), max(float(high), value)
    return Score(value, low, high, pictures, prompts, num_no_verdict)
