"""How far P(yes) can be trusted: AUROC, and whether what gets 0.8 is right four times out of five."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from thinkdraw.benchmarks.statistics import auroc
from thinkdraw.runtime.files import atomic_file

NUM_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """auroc with its 95 % interval; None where all labels are the same. ece: expected calibration error, 0..1: mean distance
    between P(yes) and the share of yes, over ten bins of equal width (Guo et al. 2017, arXiv 1706.04599). bins: (mean P(yes),
    share of yes, rows) of each bin that has rows."""

    auroc: float | None
    low: float | None
    high: float | None
    ece: float
    accuracy: float
    rows: int
    no_verdict: int
    bins: Sequence[Sequence[float]]

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def calibration(
    p_yes: np.ndarray, labels: np.ndarray, groups: Sequence[str], seed: int = 0, num_resamples: int = 1000
) -> Calibration:
    """p_yes: (R,) in 0..1, NaN = no verdict. labels: (R,) bool. groups: what is drawn anew together by the bootstrap."""
    known = ~np.isnan(p_yes)
    p, truth, names = p_yes[known].astype(float), np.asarray(labels, bool)[known], np.array(groups, dtype=object)[known]
    members = [np.flatnonzero(names == name) for name in dict.fromkeys(names)]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(num_resamples if len(members) > 1 else 0):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        draws.append(auroc(truth[rows], p[rows]))
    value, found = auroc(truth, p), [draw for draw in draws if draw == draw]
    low, high = np.percentile(found, (2.5, 97.5)) if found else (None, None)
    bins = [(float(p[at].mean()), float(truth[at].mean()), int(at.sum())) for at in _bins(p) if at.any()]
    return Calibration(
        auroc=value if value == value else None, low=None if low is None else float(low),
        high=None if high is None else float(high), ece=sum(abs(mean - share) * n for mean, share, n in bins) / max(1, len(p)),
        accuracy=float(((p > 0.5) == truth).mean()) if len(p) else 0.0, rows=len(p), no_verdict=int((~known).sum()), bins=bins,
    )  # fmt: skip


def draw_calibration(measured: Mapping[str, Calibration], path: Path) -> None:
    """A reliability diagram: the closer to the diagonal, the more P(yes) is worth."""
    import matplotlib  # here: it takes longer to import than all else in this file

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(4.6, 4.4))
    axis.plot([0, 1], [0, 1], color="0.7", lw=1)
    for name, found in measured.items():
        means, shares, sizes = zip(*found.bins) if found.bins else ((), (), ())
        area = "" if found.auroc is None else f", AUROC {found.auroc:.3f}"
        axis.plot(means, shares, marker="o", label=f"{name}: calibration error {found.ece:.3f}{area}")
        for mean, share, size in zip(means, shares, sizes):
            axis.annotate(str(size), (mean, share), fontsize=6, textcoords="offset points", xytext=(4, -8))
    axis.set(xlabel="P(yes)", ylabel="share of yes", xlim=(0, 1), ylim=(0, 1))
    axis.legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)


def _bins(p: np.ndarray) -> list[np.ndarray]:
    index = np.minimum((p * NUM_BINS).astype(int), NUM_BINS - 1)
    return [index == i for i in range(NUM_BINS)]
