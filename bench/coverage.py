"""Count how often intervals over prompts and training seeds hold the true difference.

    python bench/coverage.py                    # the table of bench/RESULTS.md, about 3 minutes on one core

Two recipes, each trained with several seeds, are judged on the same prompts. A prompt's difficulty is shared by all, each
training shifts its run's chance of a right picture by a normal amount of `--sd` points, and every picture is right or wrong
by chance. The true difference of the recipes is known, so a 95 % interval should hold it in 95 of 100 studies.
"""

import argparse
from collections.abc import Callable

import numpy as np

from thinkdraw.benchmarks.statistics import PromptVerdicts, Score, difference_over_seeds, paired_difference

GAIN = 0.05
TASKS = 6
PICTURES = 4
Runs = list[list[PromptVerdicts]]
Interval = Callable[[Runs, Runs], Score]


def study(rng: np.random.Generator, prompts: int, seeds: int, sd: float) -> tuple[Runs, Runs]:
    """Simulate the verdicts on two recipes' runs: a list of prompts for each seed.

    Difficulties are Beta(4, 4) squeezed into [.1, .9], so that a shifted chance stays one.
    """
    base = 0.1 + 0.8 * rng.beta(4, 4, size=prompts)
    sides = []
    for gain in (GAIN / 2, -GAIN / 2):
        chance = np.clip(base + gain + rng.normal(0, sd, size=(seeds, 1)), 0, 1)
        right = (rng.random((PICTURES, seeds, prompts)) < chance).astype(float)
        sides.append(
            [
                [PromptVerdicts(f"t{i % TASKS}", right[:, s, i].tolist(), f"p{i}") for i in range(prompts)]
                for s in range(seeds)
            ]
        )
    return sides[0], sides[1]


def over_prompts(a: Runs, b: Runs, num_resamples: int = 400) -> Score:
    """Compare the seeds' pooled pictures, with an interval over prompts alone."""
    return paired_difference(
        *(
            [same[0]._replace(verdicts=[v for row in same for v in row.verdicts]) for same in zip(*side, strict=True)]
            for side in (a, b)
        ),
        num_resamples=num_resamples,
    )


INTERVALS: dict[str, Interval] = {
    "prompts alone": over_prompts,
    "prompts and seeds": lambda a, b: difference_over_seeds(a, b, num_resamples=400),
    "prompts and paired seeds": lambda a, b: difference_over_seeds(a, b, paired_seeds=True, num_resamples=400),
}


def coverage(prompts: int, seeds: int, sd: float, studies: int, seed: int = 0) -> dict[str, float]:
    """Compute the share of studies whose interval holds the true difference."""
    rng = np.random.default_rng(seed)
    held = dict.fromkeys(INTERVALS, 0)
    for _ in range(studies):
        a, b = study(rng, prompts, seeds, sd)
        for name, interval in INTERVALS.items():
            score = interval(a, b)
            held[name] += score.low <= GAIN <= score.high
    return {name: count / studies for name, count in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[64, 192])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--sd", type=float, nargs="+", default=[1, 2, 3], help="points between runs of one recipe")
    parser.add_argument("--studies", type=int, default=600)
    options = parser.parse_args()
    print("| prompts | seeds | sd of a run, points | " + " | ".join(INTERVALS) + " |")
    print("|---" * (3 + len(INTERVALS)) + "|")
    for prompts in options.prompts:
        for seeds in options.seeds:
            for sd in options.sd:
                held = coverage(prompts, seeds, sd / 100, options.studies)
                print(
                    f"| {prompts} | {seeds} | {sd:g} | " + " | ".join(f"{x:.3f}" for x in held.values()) + " |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
