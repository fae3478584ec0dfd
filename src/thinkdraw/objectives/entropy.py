"""Entropy of the distribution sampled from, and a controller that holds it."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

_BETA1, _BETA2, _ADAM_EPS = 0.9, 0.999, 1e-8


def token_entropy(logits: Tensor) -> Tensor:
    """Compute the entropy of softmax(logits) over the last axis, with gradient.

    logits: (..., V) of the distribution sampled from (guided, divided by the temperature); -inf = cannot be
        sampled.
    Returns (...) in nats, float32 or wider: 0 for a certain token, log V for the uniform distribution.
    """
    log_p = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    p = log_p.exp()
    # p·log p → 0 as p → 0, but 0 · -inf would be NaN.
    return -(p * log_p.masked_fill(p == 0, 0.0)).sum(-1)


@dataclass
class AdaptiveEntropy:
    """Controller of one modality's entropy: loss += coefficient · mean entropy.

    The coefficient is α = sinh ψ, within ±cap. Adam moves ψ on J(ψ) = −sinh(ψ)·(H − H*).
    α rises while H > H*, so that entropy is penalised. It falls below 0 while H < H*, so that entropy is rewarded.

    target: H* in nats. The policy's own entropy at the start of RL is a good default.
    band: nats within which H should stay. The controller acts at half of it, because the policy answers late. While
        |H − target| < band / 2, ψ goes back to 0 by lr a step and Adam forgets. Otherwise the old coefficient, or
        an average that still pushes, would drive H out on the opposite side.
    lr: of ψ.
    cap: of |α|. ψ itself stays within ± asinh(cap), so that a saturated controller turns at once.

    The defaults suit runs of some hundred steps. The paper's settings, for guidance off and 16,384 codes: target
    2.0 (text) or 7.0 (image), band=0, lr=5e-5, cap=5e-3.
    Call `update` once per optimiser step with the *global* mean: called per micro-batch it saturates within a
    hundred micro-batches.
    ReasonGen-R1 (arXiv 2505.24875).
    """

    target: float
    band: float = 0.2
    lr: float = 1e-3
    cap: float = 5e-2
    _psi: float = field(default=0.0, init=False)
    _exp_avg: float = field(default=0.0, init=False)
    _exp_avg_sq: float = field(default=0.0, init=False)
    _num_updates: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not math.isfinite(self.target) or self.band < 0 or self.lr <= 0 or self.cap <= 0:
            raise ValueError(
                f"target={self.target}, band={self.band}, lr={self.lr}, cap={self.cap}: target must be finite, band at "
                "least 0, lr and cap above 0. To do without the controller, leave it out."
            )

    @property
    def coefficient(self) -> float:
        """α, the weight of the mean entropy in the loss, within ±cap."""
        return max(-self.cap, min(self.cap, math.sinh(self._psi)))

    def update(self, global_mean_entropy: float) -> float:
        """Move ψ by one Adam step and return the new coefficient.

        global_mean_entropy: nats, over all trained tokens of the modality in the optimiser step, on all ranks.
        Raises ValueError if it is not finite.
        """
        error = float(global_mean_entropy) - self.target
        if not math.isfinite(error):
            raise ValueError(
                f"global_mean_entropy={global_mean_entropy}: the controller needs a finite number of nats. Skip the "
                "update where the modality has no trained token, and look for NaN logits otherwise."
            )
        if abs(error) < self.band / 2:
            self._psi = math.copysign(max(0.0, abs(self._psi) - self.lr), self._psi)
            self._exp_avg, self._exp_avg_sq, self._num_updates = 0.0, 0.0, 0
            return self.coefficient
        gradient = -math.cosh(self._psi) * error
        self._num_updates += 1
        self._exp_avg = _BETA1 * self._exp_avg + (1 - _BETA1) * gradient
        self._exp_avg_sq = _BETA2 * self._exp_avg_sq + (1 - _BETA2) * gradient**2
        mean = self._exp_avg / (1 - _BETA1**self._num_updates)
        scale = math.sqrt(self._exp_avg_sq / (1 - _BETA2**self._num_updates)) + _ADAM_EPS
        limit = math.asinh(self.cap)
        self._psi = max(-limit, min(limit, self._psi - self.lr * mean / scale))
        return self.coefficient

    def state_dict(self) -> dict[str, float]:
        """Return the state of a resumed run, as plain numbers.

        It includes the target, which is measured once, at the start.
        """
        return {
            "target": self.target,
            "psi": self._psi,
            "exp_avg": self._exp_avg,
            "exp_avg_sq": self._exp_avg_sq,
            "num_updates": self._num_updates,
        }

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Restore what `state_dict` returned; band, lr and cap stay the config's.

        Raises ValueError on other keys.
        """
        if state.keys() != self.state_dict().keys():
            raise ValueError(
                f"entropy controller state has the keys {sorted(state)}, expected {sorted(self.state_dict())}. "
                "Load the state that AdaptiveEntropy.state_dict() saved."
            )
        self.target = float(state["target"])
        self._psi = float(state["psi"])
        self._exp_avg = float(state["exp_avg"])
        self._exp_avg_sq = float(state["exp_avg_sq"])
        self._num_updates = int(state["num_updates"])
