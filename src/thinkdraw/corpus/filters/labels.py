"""Labels for verifiers as PARM trains them (Guo et al. 2025, arXiv 2501.13926).

They say whether a picture is right, whether an unfinished one is clear, and whether it will become right.
"""

from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import Literal

import numpy as np

Balance = Literal["prompt", "overall"]


def right_labels(scores: Sequence[float], min_yes: float) -> list[bool | None]:
    """Label finished pictures: yes where the judge's score reaches `min_yes`.

    None where the judge had no verdict (NaN).
    """
    return [None if score != score else score >= min_yes for score in scores]


def clear_label(fraction: float, clear_above: float, unclear_below: float) -> bool | None:
    """Say whether a picture can be judged when this fraction of it is drawn.

    None between the two bounds. PARM's rule by steps: of 18, those after the 11th are clear and those before the 10th
    are not.
    """
    if fraction > clear_above:
        return True
    return False if fraction < unclear_below else None


def balance_labels(labels: Sequence[bool | None], groups: Sequence[Hashable], balance: Balance, seed: int) -> list[int]:
    """Choose rows, ascending, with as many yes as no.

    balance "prompt": within each group, so that the prompt alone says nothing; "overall": over all rows. `seed` draws
    which rows of the larger side stay. Rows without a label are left out.
    """
    rows: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for row, (label, group) in enumerate(zip(labels, groups, strict=True)):
        if label is not None:
            rows[group if balance == "prompt" else None][label].append(row)
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for no, yes in rows.values():
        size = min(len(no), len(yes))
        for side in (no, yes):
            chosen += [side[i] for i in rng.permutation(len(side))[:size]]
    return sorted(chosen)
