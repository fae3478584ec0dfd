"""How far rounding alone moves a checkpoint's log-probs.

It is the yardstick of `thinkdraw check`. Two correct computations of one log-prob differ by rounding: a decode step
reads a KV cache, a training pass reads all tokens at once. How much that is depends on checkpoint, dtype and device, so
it is measured: the trainer scores the same tokens again, one row at a time, with the last digit of every matrix product
drawn anew. Other micro-batches alone would not do: many kernels give a row the same bits whatever is beside it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thinkdraw.types import Policy, Rollouts

# In bf16 a sound check takes at most 0.54 of a limit, and what is broken 4.9 times one or more (`bench/check_power.py`).
RMS_TIMES = 3.0
STANDARD_ERRORS = 6.0


@contextmanager
def random_rounding(policy: Policy, seed: int = 0) -> Iterator[None]:
    """Round every matrix product in the policy's blocks at random.

    It does so inside the `with` block. Each number is moved by up to half the spacing of its dtype, which is how far
    apart two kernels may round it. Monte Carlo arithmetic, Parker 1997 (UCLA CSD-970002).
    """
    generator = torch.Generator(device=policy.device).manual_seed(seed)

    def move(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        noise = torch.rand(output.shape, generator=generator, device=output.device) - 0.5
        return (output.float() * (1 + torch.finfo(output.dtype).eps * noise)).to(output.dtype)

    hooks = [module.register_forward_hook(move) for module in _products(policy.blocks)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _products(blocks: Sequence[nn.Module]) -> Iterator[nn.Module]:
    """List the modules that multiply by a matrix.

    They have a weight of two dimensions and no module inside.
    """
    for module in (m for block in blocks for m in block.modules()):
        if not list(module.children()) and any(p.ndim == 2 for p in module.parameters()):
            yield module


@torch.no_grad()
def rounded_log_probs(policy: Policy, rollouts: Rollouts) -> Tensor:
    """Score rollouts one row at a time with random rounding: log-probs (B, T) nats."""
    log_probs = torch.zeros_like(rollouts.log_probs)
    with random_rounding(policy):
        for row in range(len(rollouts)):
            scored = policy.log_probs(rollouts.select([row])).log_probs[0]
            log_probs[row, : len(scored)] = scored
    return log_probs


@dataclass(frozen=True)
class Deviation:
    """How far sampler and trainer are apart on K tokens, and how far they may be.

    rms: nats. mean: nats; the trainer's log-probs less the sampler's.
    tilt: slope of that difference over log-prob + entropy, which is how much likelier than usual a token was. Trainer
        temperatures or guidance scales that are off by a few per cent turn it by as much, long before they show in rms.
    largest: of a single token, nats; for information.
    """

    rms: float
    mean: float
    tilt: float
    largest: float
    rms_limit: float
    mean_limit: float
    tilt_limit: float

    @property
    def share(self) -> float:
        """The largest share of its limit that rms, mean or tilt takes; NaN if any is NaN."""
        measured = torch.tensor([self.rms, abs(self.mean), abs(self.tilt)])
        return float((measured / torch.tensor([self.rms_limit, self.mean_limit, self.tilt_limit])).max())

    @property
    def ok(self) -> bool:
        """Whether all are within their limits; NaN is not."""
        return self.share <= 1

    @staticmethod
    def of(difference: Tensor, rounding: Tensor, excess: Tensor, floor: float) -> "Deviation":
        """Compare a difference with what rounding alone does.

        difference: (K,) nats, trainer less sampler.
        rounding: (K,) nats, between two passes of the trainer over the same tokens.
        excess: (K,) nats, log-prob + entropy of each token.
        floor: least limit, for fp32.
        """
        difference, rounding, excess = difference.double(), rounding.double(), excess.double()
        noise = rounding.square().mean().sqrt()
        spread = excess.square().sum().clamp(min=torch.finfo(torch.float32).tiny)
        # Under the sampler's distribution the mean difference is −KL, −½ of its square: rounding itself is that biased.
        mean_limit = STANDARD_ERRORS * noise / len(rounding) ** 0.5 + noise.square()
        tilt_limit = STANDARD_ERRORS * (rounding * excess).square().sum().sqrt() / spread
        return Deviation(
            rms=float(difference.square().mean().sqrt()),
            mean=float(difference.mean()),
            tilt=float((difference * excess).sum() / spread),
            largest=float(difference.abs().max()),
            rms_limit=max(floor, RMS_TIMES * float(noise)),
            mean_limit=max(floor, float(mean_limit)),
            tilt_limit=max(floor, float(tilt_limit)),
        )
