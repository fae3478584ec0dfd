"""The entropy term of GRPO: a coefficient α per modality; adaptive, fixed or off."""

from typing import Literal

from pydantic import Field

from thinkdraw.config import StrictModel
from thinkdraw.objectives import AdaptiveEntropy, SegmentCounts
from thinkdraw.runtime.checkpoint import State


class EntropySettings(StrictModel):
    """loss += α · mean entropy, per modality; a negative α rewards entropy."""

    mode: Literal["adaptive", "fixed", "off"] = Field(
        default="adaptive",
        description="adaptive: a controller holds the entropy near its target. fixed: constant coefficients. "
        "off: no entropy term.",
    )
    target_text: float | None = Field(
        default=None,
        ge=0,
        description="Entropy of thought tokens to hold, in nats; null takes the policy's own at the first "
        "update. ReasonGen-R1: 2.0 (arXiv 2505.24875).",
    )
    target_image: float | None = Field(
        default=None,
        ge=0,
        description="Entropy of image tokens to hold, in nats; null takes the policy's own at the first update. "
        "ReasonGen-R1: 7.0 (arXiv 2505.24875).",
    )
    band: float = Field(
        default=0.2,
        ge=0,
        description="Nats around the target within which entropy is to stay; nearer than half of it the "
        "coefficient decays to 0. ReasonGen-R1: 0.",
    )
    lr: float = Field(
        default=1e-3,
        gt=0,
        description="Step of the controller per optimiser step. Larger reacts sooner and overshoots more. "
        "ReasonGen-R1: 5e-5 (arXiv 2505.24875).",
    )
    cap: float = Field(
        default=5e-2,
        gt=0,
        description="Largest size of the controller's coefficient, of either sign. ReasonGen-R1: 5e-3 (arXiv "
        "2505.24875).",
    )
    fixed_text: float = Field(
        default=0.0,
        description="Constant coefficient of the entropy of thoughts in the loss: above 0 it lowers entropy, "
        "below 0 it raises it. `adaptive` adds its own.",
    )
    fixed_image: float = Field(
        default=0.0,
        description="Constant coefficient of the entropy of image tokens in the loss: above 0 it lowers entropy, "
        "below 0 it raises it. `adaptive` adds its own.",
    )


class EntropyControl:
    """The coefficients of the entropy term: constant, or moved by controllers.

    Each modality has a controller. It is made at the first update, since its target may be the entropy that is measured
    there.
    """

    def __init__(self, settings: EntropySettings) -> None:
        self.settings = settings
        self._controllers: dict[str, AdaptiveEntropy] = {}

    @property
    def coefficients(self) -> tuple[float, float]:
        """Coefficients α of text and of image for the next optimiser step."""
        s = self.settings
        if s.mode == "off":
            return 0.0, 0.0
        text, image = (self._controllers.get(name) for name in ("text", "image"))
        return (
            s.fixed_text + (text.coefficient if text else 0.0),
            s.fixed_image + (image.coefficient if image else 0.0),
        )

    def update(self, means: dict[str, float], counts: SegmentCounts) -> dict[str, float]:
        """Move the coefficients once after an optimiser step.

        means: of the step, over all processes, with `entropy_text` and `entropy_image` in nats. One update per
        micro-batch or per process instead would move the controllers many times a step, and saturate them.
        counts: the step's trained tokens; a modality without any keeps its coefficient.
        Returns the coefficients that the step was made with, for metrics.jsonl.
        """
        used: dict[str, float] = dict(zip(("entropy_coef_text", "entropy_coef_image"), self.coefficients))
        if self.settings.mode == "adaptive":
            for name, tokens in (("text", counts.text), ("image", counts.image)):
                if tokens > 0:
                    self._controller(name, means[f"entropy_{name}"]).update(means[f"entropy_{name}"])
        return used

    def _controller(self, name: str, entropy: float) -> AdaptiveEntropy:
        """Return a modality's controller, or make it.

        entropy: its target where the settings name none.
        """
        if name not in self._controllers:
            target = getattr(self.settings, f"target_{name}")
            s = self.settings
            self._controllers[name] = AdaptiveEntropy(entropy if target is None else target, s.band, s.lr, s.cap)
        return self._controllers[name]

    def state_dict(self) -> State:
        return {name: controller.state_dict() for name, controller in self._controllers.items()}

    def load_state_dict(self, state: State) -> None:
        for name, saved in state.items():
            self._controller(name, saved["target"]).load_state_dict(saved)
