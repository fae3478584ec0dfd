"""Check that a checkpoint's sampler agrees with its trainer.

This is the first thing to run on a new model. All measurements are on rollouts that the checkpoint samples here;
nothing is assumed about how it was made. How far sampler and trainer may be apart is measured too, see `rounding.py`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from thinkdraw.config import StrictModel
from thinkdraw.policies.rounding import RMS_TIMES, Deviation, rounded_log_probs
from thinkdraw.types import CheckItem, Policy, Prompt, Rollouts, Sampling

GUIDANCE = (0.0, 1.0, 5.0)
PROMPTS = (
    "a photo of a red circle",
    "a photo of a small blue star left of a large green square",
    "three cups",
)
RATIO_FLOOR = 1e-4  # for mean |ratio − 1| in fp32
MIN_IMAGE_TOKENS = 256  # per comparison, so that means say something where a picture has few tokens


def fp32_limit(sampling: Sampling) -> float:
    """Return how far two computations of a log-prob may always differ, nats.

    This is what fp32 is granted. Guidance s and temperature T multiply the rounding of logits by (|s| + |s − 1|) / T.
    The limit is 1e-4 up to a factor of 5 (guidance 3 at temperature 1), and grows in proportion beyond.
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
        description="Type of the forward pass: fp32 shows an error of the code best; bf16 shows how far rounding takes "
        "sampler and trainer apart, and the errors that are larger than it.",
    )
    dtype: Literal["fp32", "bf16"] = Field(
        default="fp32", description="Type of the weights: that of the training to come, bf16 halves their memory."
    )


@dataclass(frozen=True)
class CheckResult:
    """The result of `check_policy`.

    rows: one item each.
    max_difference: "format, guidance" → largest |Δ log-prob| in nats.
    deviations: "format, guidance, modality" → what the line of that name compares.
    """

    rows: tuple[CheckItem, ...]
    max_difference: dict[str, float]
    deviations: dict[str, Deviation]

    @property
    def ok(self) -> bool:
        """Whether every item is as expected."""
        return all(row.ok for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Convert to what `thinkdraw check --json` prints."""
        rows = [{"name": i.name, "found": i.measured, "wanted": i.expected, "ok": i.ok} for i in self.rows]
        deviations = {name: asdict(deviation) for name, deviation in self.deviations.items()}
        return {"ok": self.ok, "rows": rows, "max_difference": self.max_difference, "log_probs": deviations}


def check_policy(policy: Policy, prompts: Sequence[str] = PROMPTS, group_size: int = 2, seed: int = 1) -> CheckResult:
    """Check log-probs, pictures, prompts and special tokens of a policy.

    Log-probs of sampler and trainer are compared for each thought format, guidance scale and modality; so is the ratio at
    the first update. Pictures go through their tokenizer and back. The family itself checks its prompts and special
    tokens.
    group_size: rollouts per prompt, and more where pictures have few tokens.
    """
    to_draw = [Prompt(text, id=str(i)) for i, text in enumerate(prompts)]
    group_size = max(group_size, -(-MIN_IMAGE_TOKENS // (len(prompts) * policy.picture.num_tokens)))
    largest: dict[str, float] = {}
    deviations: dict[str, Deviation] = {}
    ratios = _Ratios()
    drawn: Rollouts | None = None
    for thought in policy.thought_formats:
        for scale in GUIDANCE:
            sampling = Sampling(thought=thought, guidance_scale=scale, max_thought_tokens=24)
            drawn = policy.sample(to_draw, sampling, group_size=group_size, seed=seed, decode=False)
            with torch.no_grad():
                scored = policy.log_probs(drawn)
            difference = scored.log_probs - drawn.log_probs
            rounding = rounded_log_probs(policy, drawn) - scored.log_probs
            name = f"{thought}, guidance {scale:g}"
            largest[name] = difference[drawn.mask].abs().max().item()
            ratios.add(difference[drawn.mask], rounding[drawn.mask])
            for kind, tokens in (("text", drawn.mask & ~drawn.is_image), ("image", drawn.mask & drawn.is_image)):
                if tokens.any():
                    excess = (drawn.log_probs + scored.entropy)[tokens]
                    deviations[f"{name}, {kind}"] = Deviation.of(
                        difference[tokens], rounding[tokens], excess, fp32_limit(sampling)
                    )
    assert drawn is not None
    rows = [_item(f"log-probs, {name}", deviation) for name, deviation in deviations.items()]
    rows += [ratios.item(), _round_trip(policy, drawn), *policy.text.check()]
    return CheckResult(tuple(rows), largest, deviations)


def _item(name: str, deviation: Deviation) -> CheckItem:
    """Make a line of a comparison of log-probs, all in nats."""
    d = deviation
    return CheckItem(
        name,
        f"rms {d.rms:.1e}, mean {d.mean:+.1e}, tilt {d.tilt:+.1e} (max {d.largest:.1e})",
        f"rms ≤ {d.rms_limit:.1e}, |mean| ≤ {d.mean_limit:.1e}, |tilt| ≤ {d.tilt_limit:.1e}",
        d.ok,
    )


class _Ratios:
    """Probability ratios of trainer to sampler, over all comparisons.

    Beside them those of two passes of the trainer, which give the limit.
    """

    def __init__(self) -> None:
        self.differences: list[Tensor] = []
        self.roundings: list[Tensor] = []

    def add(self, difference: Tensor, rounding: Tensor) -> None:
        """Add the tokens (K,) of one comparison."""
        self.differences.append(difference)
        self.roundings.append(rounding)

    def item(self) -> CheckItem:
        """Make the line of the ratio, which is 1 but for rounding before the first step."""
        ratio, rounding = (torch.cat(parts).expm1().abs() for parts in (self.differences, self.roundings))
        measured, limit = float(ratio.mean()), max(RATIO_FLOOR, RMS_TIMES * float(rounding.mean()))
        return CheckItem(
            "ratio at the first update",
            f"mean |ratio − 1| {measured:.1e} (max {float(ratio.max()):.1e})",
            f"mean ≤ {limit:.1e}",
            measured <= limit,
        )


def _round_trip(policy: Policy, drawn: Rollouts) -> CheckItem:
    """Check that drawn pictures survive encoding and decoding: little should change."""
    first = policy.decode_tokens(drawn.image_tokens())
    second = policy.decode_tokens(policy.encode_pictures(first))
    error = (first.float() - second.float()).abs().mean().item() / 255
    is_finite = error == error  # NaN is not equal to itself
    return CheckItem("VQ round trip of drawn pictures", f"mean |Δ| {error:.3f} of the range", "finite", is_finite)
