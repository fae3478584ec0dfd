"""Sampling settings of a policy."""

from typing import Literal

from pydantic import Field

from thinkdraw.config import StrictModel

# inline: prompt, thought and picture in one context (ReasonGen-R1). rewrite: the picture is drawn in a fresh context, the
# prompt with the thought behind it (T2I-R1). off: a picture without a thought.
ThoughtFormat = Literal["inline", "rewrite", "off"]


class Sampling(StrictModel):
    """Sampling settings.

    Guidance applies to image tokens only; temperature, top-k and top-p apply to text and image tokens.
    """

    thought: ThoughtFormat = Field(
        default="inline",
        description="inline: thought and picture follow the prompt in one context; rewrite: the picture has a "
        "fresh context of prompt and thought; off: no thought.",
    )
    max_thought_tokens: int = Field(
        default=64, ge=1, description="Longest thought in tokens; a longer one is cut, and the picture begins."
    )
    temperature: float = Field(
        default=1.0,
        gt=0,
        description="Logits of thoughts and pictures are divided by it. Above 1 samples are more varied, below 1 "
        "more alike.",
    )
    top_k: int | None = Field(
        default=None, ge=1, description="Sample from the k likeliest tokens only; null sets no limit."
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Sample from the likeliest tokens that together have this probability; null sets no limit.",
    )
    guidance_scale: float = Field(
        default=1.0,
        ge=0,
        description="Classifier-free guidance of image tokens: logits u + s·(c − u), with and without prompt. "
        "Larger follows the prompt more; 1 is none and saves half the work.",
    )
    greedy: bool = Field(
        default=False, description="Take the likeliest token each time; log-probs are still those of the distribution."
    )
