"""Check that a checkpoint's sampler agrees with its trainer.

This is the first thing to run on a new model. All measurements are on rollouts that the checkpoint samples here;
nothing is assumed about how it was made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.types import CheckItem, Policy, Prompt, Rollouts, Sampling

GUIDANCE = (0.0, 1.0, 5.0)
PROMPTS = (
    "a photo of a red circle",
    "a photo of a small blue star left of a large green square",
    "three cups",
)
BF16_LIMIT = 0.5  # nats, between a decode step and a training pass, which round differently


def fp32_limit(sampling: Sampling) -> float:
    """Return how far two computations of a log-prob may differ in fp32, nats.

    Guidance s and temperature T multiply the rounding of logits by (|s| + |s − 1|) / T. The limit is 1e-4 up to a
    factor of 5 (guidance 3 at temperature 1), and grows in proportion beyond.
    """
    s, t = sampling.guidance_scale, sampling.temperature
    return 1e-4 * max(1.0, (abs(s) + abs(s - 1)) / t / 5)


class CheckConfig(StrictModel):
    """Settings of `thinkdraw check`."""

    policy: str = Field(
        description="The policy that is checked: checkpoint folder, run folder (its best checkpoint), model id, "
        "or `lab`."
    )
    device: str = Field(
        default="auto",
        description="Where the network runs: auto, cpu, cuda or mps. auto takes an accelerator where there is one.",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="Type of the forward pass: fp32 shows an error of the code, bf16 how far rounding alone "
        "takes sampler and trainer apart.",
    )


@dataclass(frozen=True)
class CheckResult:
    """The result of `check_policy`.

    rows: one item each.
    max_difference: "format, guidance" → largest |Δ log-prob| in nats.
    """

    rows: tuple[CheckItem, ...]
    max_difference: dict[str, float]

    @property
    def ok(self) -> bool:
        """Whether every item is as expected."""
        return all(row.ok for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Convert to what `thinkdraw check --json` prints."""
        rows = [{"name": i.name, "found": i.measured, "wanted": i.expected, "ok": i.ok} for i in self.rows]
        return {"ok": self.ok, "rows": rows, "max_difference": self.max_difference}


def check_policy(policy: Policy, prompts: Sequence[str] = PROMPTS, group_size: int = 2) -> CheckResult:
    """Check log-probs, pictures, prompts and special tokens of a policy.

    Log-probs of sampler and trainer are compared for each thought format and guidance scale; so is the ratio at the
    first update. Pictures go through their tokenizer and back. The family itself checks its prompts and special
    tokens.
    """
    to_draw = [Prompt(text, id=str(i)) for i, text in enumerate(prompts)]
    is_fp32 = policy.precision == "fp32" and policy.dtype == torch.float32
    rows, differences, ratio, largest = [], {}, 0.0, 0.0
    drawn: Rollouts | None = None
    for thought in policy.thought_formats:
        for scale in GUIDANCE:
            sampling = Sampling(thought=thought, guidance_scale=scale, max_thought_tokens=24)
            drawn = policy.sample(to_draw, sampling, group_size=group_size, seed=1, decode=False)
            with torch.no_grad():
                scored = policy.log_probs(drawn)
            difference = (scored.log_probs - drawn.log_probs)[drawn.mask]
            gap = difference.abs().max().item()
            ratio = max(ratio, difference.exp().sub(1).abs().max().item())
            name = f"{thought}, guidance {scale:g}"
            differences[name] = gap
            limit = fp32_limit(sampling) if is_fp32 else BF16_LIMIT
            largest = max(largest, limit)
            rows.append(
                CheckItem(f"log-prob parity, {name}", f"max |Δ| {gap:.1e} nats", f"≤ {limit:.2g}", gap <= limit)
            )
    rows.append(
        CheckItem("ratio at the first update", f"max |ratio − 1| {ratio:.1e}", f"≤ {largest:.2g}", ratio <= largest)
    )
    assert drawn is not None
    rows += [_round_trip(policy, drawn), *policy.text.check()]
    return CheckResult(tuple(rows), differences)


def _round_trip(policy: Policy, drawn: Rollouts) -> CheckItem:
    """Check that drawn pictures survive encoding and decoding: little should change."""
    first = policy.decode_tokens(drawn.image_tokens())
    second = policy.decode_tokens(policy.encode_pictures(first))
    error = (first.float() - second.float()).abs().mean().item() / 255
    is_finite = error == error  # NaN is not equal to itself
    return CheckItem("VQ round trip of drawn pictures", f"mean |Δ| {error:.3f} of the range", "finite", is_finite)
