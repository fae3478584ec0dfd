"""Labels for verifiers of PARM's kind (Guo et al. 2025, arXiv 2501.13926): is the picture right, is an unfinished one clear, will it
become right?"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

Balance = Literal["prompt", "overall"]


def right_labels(scores: Sequence[float], min_yes: float) -> list[bool | None]:
    """Yes where a judge's score of the finished picture reaches `min_yes`; None where it had no verdict (NaN)."""
    return [None if score != score else score >= min_yes for score in scores]


def clear_label(fraction: float, clear_above: float, unclear_below: float) -> bool | None:
    """Whether a picture of which this fraction is drawn can be judged; None between the two bounds. PARM's rule by steps:
    of 18, those after the 11th are clear and those before the 10th are not."""
    if fraction > clear_above:
        return True
    return False if fraction < unclear_below else None


def balanced(labels: Sequence[bool | None], groups: Sequence[Hashable], balance: Balance, seed: int) -> list[int]:
    """Rows, ascending, with as many yes as no: within each group, so that the prompt alone says nothing, or over all.

    Which rows of the larger side stay is drawn by `seed`; rows without a label go.
    """
    rows: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for row, (label, group) in enumerate(zip(labels, groups, strict=True)):
        if label is not None:
            rows[group if balance == "prompt" else None][label].append(row)
    rng = np.random.default_rng(seed)
    kept: list[int] = []
    for no, yes in rows.values():
        size = min(len(no), len(yes))
        for side in (no, yes):
            kept += [side[i] for i in rng.permutation(len(side))[:size]]
    return sorted(kept)
