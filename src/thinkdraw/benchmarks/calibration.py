"""How far P(yes) can be trusted: AUROC, and calibration.

P(yes) is calibrated if what gets 0.8 is right four times out of five.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from thinkdraw.benchmarks.statistics import auroc
from thinkdraw.charts.points import Point, Points, points_plot, sheet
from thinkdraw.runtime.files import atomic_write_text
from thinkdraw.runtime.json_types import JsonObject

NUM_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """How well P(yes) ranks answers, and how well it matches the share of yes.

    auroc: with its 95 % interval low, high; None where all labels are the same.
    ece: expected calibration error, 0..1: mean distance between P(yes) and the share of yes, over ten bins of equal
    width (Guo et al. 2017, arXiv 1706.04599). bins: (mean P(yes), share of yes, rows) of each bin that has rows.
    """

    auroc: float | None
    low: float | None
    high: float | None
    ece: float
    accuracy: float
    rows: int
    no_verdict: int
    bins: Sequence[Sequence[float]]

    def as_dict(self) -> JsonObject:
        return dataclasses.asdict(self)


def calibration(
    p_yes: np.ndarray, labels: np.ndarray, groups: Sequence[str], seed: int = 0, num_resamples: int = 1000
) -> Calibration:
    """Measure the calibration of P(yes), with a percentile bootstrap for the AUROC.

    p_yes: (R,) in 0..1, NaN = no verdict. labels: (R,) bool.
    groups: (R,) names. The bootstrap redraws a group's rows together, because rows of one picture are not
    independent.
    """
    known = ~np.isnan(p_yes)
    p, truth, names = p_yes[known].astype(float), np.asarray(labels, bool)[known], np.array(groups, dtype=object)[known]
    members = [np.flatnonzero(names == name) for name in dict.fromkeys(names)]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(num_resamples if len(members) > 1 else 0):
        rows = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        draws.append(auroc(truth[rows], p[rows]))
    # A draw whose labels are all the same has no AUROC: NaN, which differs from itself.
    value, known_draws = auroc(truth, p), [draw for draw in draws if draw == draw]
    low, high = np.percentile(known_draws, (2.5, 97.5)) if known_draws else (None, None)
    bins = [(float(p[at].mean()), float(truth[at].mean()), int(at.sum())) for at in _bins(p) if at.any()]
    return Calibration(
        auroc=value if value == value else None, low=None if low is None else float(low),
        high=None if high is None else float(high), ece=sum(abs(mean - share) * n for mean, share, n in bins) / max(1, len(p)),
        accuracy=float(((p > 0.5) == truth).mean()) if len(p) else 0.0, rows=len(p), no_verdict=int((~known).sum()), bins=bins,
    )  # fmt: skip


def draw_calibration(measured: Mapping[str, Calibration], path: Path) -> None:
    """Draw a reliability diagram as SVG; the number beside a point counts its rows.

    The closer the points are to the diagonal, the better P(yes) is calibrated.
    """
    groups = []
    for index, (name, result) in enumerate(measured.items()):
        area = "" if result.auroc is None else f", AUROC {result.auroc:.3f}"
        points = [Point(mean, share, note=str(int(rows))) for mean, share, rows in result.bins]
        groups.append(Points(f"{name}: error {result.ece:.3f}{area}", points, index, is_joined=True))
    chart = points_plot(
        "calibration", "Calibration of P(yes)", groups, x_label="P(yes)", y_label="share of yes", diagonal=True
    )
    atomic_write_text(path, sheet("calibration error, and area under the ROC curve", [chart], groups))


def _bins(p: np.ndarray) -> list[np.ndarray]:
    index = np.minimum((p * NUM_BINS).astype(int), NUM_BINS - 1)
    return [index == i for i in range(NUM_BINS)]
