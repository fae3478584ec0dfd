"""How a policy samples."""

from typing import Literal

from pydantic import Field

from thinkdraw.config import StrictModel

# inline: prompt, thought and picture in one context (ReasonGen-R1). rewrite: the picture is drawn in a fresh context, the
# prompt with the thought behind it (T2I-R1). off: a picture without a thought.
ThoughtFormat = Literal["inline", "rewrite", "off"]


class Sampling(StrictModel):
    """How a policy samples. Guidance applies to image tokens only; temperature, top-k and top-p to both modalities."""

    thought: ThoughtFormat = Field(default="inline", description="Where the thought stands: inline, rewrite or off.")
    max_thought_tokens: int = Field(
        default=64, ge=1, description="Budget; a longer thought is cut and begin-of-image forced."
    )
    temperature: float = Field(default=1.0, gt=0)
    top_k: int | None = Field(default=None, ge=1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    guidance_scale: float = Field(default=1.0, ge=0, description="u + s(c − u) on image logits; 1 is no guidance.")
    greedy: bool = Field(
        default=False, description="Take the most likely token; log-probs are still those of the distribution."
    )
