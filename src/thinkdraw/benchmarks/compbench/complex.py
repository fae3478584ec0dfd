"""How T2I-CompBench puts scores together: BLIP-VQA's answers, and the 3-in-1 score of complex prompts.

Rounding and weights are those of github.com/Karine-Huang/T2I-CompBench (arXiv 2307.06350).
"""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

ComplexKind = Literal["spatial", "action", "spatialaction"]


def attribute_score(p_yes: Sequence[float]) -> float:
    """The product of P(yes) over a picture's noun chunks, as it is written: with four decimals.

    Each factor is rounded to four decimals first, and the product is one of float32. NaN if any factor is; 1 without
    any factor, as upstream.
    """
    product = np.float32(1)
    for p in p_yes:
        product *= np.float32(float(f"{p:.4f}"))
    return float(f"{product:.4f}")


def complex_kind(prompt: str, spatial: Collection[str], action: Collection[str]) -> ComplexKind:
    """Which scores a complex prompt is given. spatial, action: prompts, each as `comparable` makes it."""
    text = comparable(prompt)
    return "spatial" if text in spatial else "action" if text in action else "spatialaction"


def comparable(prompt: str) -> str:
    """A complex prompt as upstream compares them: up to the first full stop, in lower case."""
    return prompt.strip().split(".")[0].lower()


def three_in_one(kind: ComplexKind, attribute: float, spatial: float, action: float) -> float:
    """The mean of the scores that the kind is given: attributes always, relations (2D), actions (CLIP's cosine).

    A score that the kind is not given may be NaN; otherwise NaN gives NaN.
    """
    if kind == "spatialaction":
        return (attribute + spatial + action) / 3
    return ((spatial if kind == "spatial" else action) + attribute) * 0.5


def needs(kind: ComplexKind) -> tuple[bool, bool]:
    """Whether the kind is given (relations, actions)."""
    return kind != "action", kind != "spatial"
