"""How T2I-CompBench combines scores: BLIP-VQA's answers, complex prompts' parts.

Rounding and weights are those of github.com/Karine-Huang/T2I-CompBench (arXiv 2307.06350).
"""

from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

ComplexKind = Literal["spatial", "action", "spatialaction"]


def attribute_score(p_yes: Sequence[float]) -> float:
    """Multiply P(yes) over a picture's noun chunks, rounded as upstream does.

    Each factor is rounded to four decimals, the product is computed in float32 and rounded to four decimals. NaN if
    any factor is; 1 without any factor, as upstream.
    """
    # Upstream writes each answer to a file with four decimals, and multiplies what it reads there.
    product = np.float32(1)
    for p in p_yes:
        product *= np.float32(float(f"{p:.4f}"))
    return float(f"{product:.4f}")


def complex_kind(prompt: str, spatial: Collection[str], action: Collection[str]) -> ComplexKind:
    """Tell which scores a complex prompt is given.

    spatial, action: prompts, each as its `comparison_key`.
    """
    text = comparison_key(prompt)
    return "spatial" if text in spatial else "action" if text in action else "spatialaction"


def comparison_key(prompt: str) -> str:
    """Shorten a complex prompt as upstream compares them.

    Up to the first full stop, in lower case.
    """
    return prompt.strip().split(".")[0].lower()


def three_in_one(kind: ComplexKind, attribute: float, spatial: float, action: float) -> float:
    """Average the scores that the kind is given.

    Attributes always count; relations (2D) and actions (CLIP's cosine) by kind. A score that the kind is not given
    may be NaN; any other NaN gives NaN.
    """
    if kind == "spatialaction":
        return (attribute + spatial + action) / 3
    return ((spatial if kind == "spatial" else action) + attribute) * 0.5


def needed_scores(kind: ComplexKind) -> tuple[bool, bool]:
    """Tell whether the kind needs (relations, actions)."""
    return kind != "action", kind != "spatial"
