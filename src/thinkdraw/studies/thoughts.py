"""Do thoughts matter? Pictures from a policy's own thoughts, and from others.

    thinkdraw thoughts runs/quickstart/grpo

A policy draws each prompt four times: from its own thought, another prompt's, an empty one, and without a thought.
"""

from collections.abc import Callable

from pydantic import Field, field_validator

from thinkdraw.benchmarks.lab.thoughts import SwapReport, swap_study
from thinkdraw.config import StrictModel
from thinkdraw.console import tell
from thinkdraw.errors import UserError
from thinkdraw.lab.prompts import prompt_set
from thinkdraw.policies.drawing import DRAWING, OVERRIDES, choose_drawing
from thinkdraw.policies.opening import load_trained
from thinkdraw.training.display import Display
from thinkdraw.types import SamplingOverrides


class ThoughtsConfig(StrictModel):
    """Which policy, and how many pictures."""

    policy: str = Field(
        description="The policy whose thoughts are looked at: checkpoint folder, run folder (its best "
        "checkpoint), model id, or `lab`."
    )
    count: int = Field(
        default=192,
        ge=2,
        description="How many prompts of the lab's GenEval test set. More make the intervals narrower and take longer.",
    )
    samples: int = Field(
        default=2, ge=1, description="Pictures drawn for each prompt under each of the four conditions."
    )
    drawing: str | None = Field(default=None, description=DRAWING)
    sampling: SamplingOverrides = Field(default=SamplingOverrides(), description=f"{OVERRIDES} off is refused here.")
    seed: int = Field(
        default=0, ge=0, le=1 << 62, description="Seed of thoughts and pictures; the prompts are the test set's."
    )

    @field_validator("sampling")
    @classmethod
    def _thinks(cls, sampling: SamplingOverrides) -> SamplingOverrides:
        if sampling.thought == "off":
            raise ValueError("sampling.thought=off: thoughts are compared with none. Write inline or rewrite.")
        return sampling


def run(config: ThoughtsConfig, say: Callable[[str], None] = tell) -> SwapReport:
    """Draw every condition and judge it by the lab's detector. Raises UserError."""
    policy = load_trained(config.policy)
    drawing = choose_drawing(policy, config.sampling, config.drawing)
    if drawing.sampling.thought == "off":
        raise UserError(
            f"{config.policy} {drawing.line()}. Thoughts are compared with none: write thought=inline or rewrite."
        )
    say(f"{config.policy} {drawing.line()}")
    prompts = [example.prompt for example in prompt_set("geneval", "test", config.count, 0)]
    with Display("thoughts", len(prompts), 1, announce=True) as display:
        return swap_study(
            policy, prompts, drawing.sampling, samples=config.samples, seed=config.seed,
            progress=lambda done: display.show(done, {}, ()),
        )  # fmt: skip
