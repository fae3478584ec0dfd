"""The policy's own understanding side as its judge, held still while the policy learns."""

import copy
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

from torch import Tensor, nn

from thinkdraw.errors import UserError
from thinkdraw.judges.lab import PolicyQuestioner
from thinkdraw.judges.loading import digest
from thinkdraw.types import Policy


class SelfQuestioner(PolicyQuestioner):
    """P(yes) by the policy as it was, in 0..1.

    frozen "copy": a copy of it, taken now, so make the judge before
    the first update and, when a run resumes, from the checkpoint that the run began with; it costs the policy's memory
    once more. "adapter-off": the policy itself with its adapter switched off while it answers, which costs nothing.
    max_pairs: (picture, question) pairs per call of the policy.
    Raises UserError for a policy that cannot see, and for "adapter-off" of one without adapter, which would learn as its
    own judge.
    """

    name = "self"
    hard = False

    def __init__(self, policy: Policy, frozen: Literal["copy", "adapter-off"] = "copy", max_pairs: int = 512):
        if frozen not in ("copy", "adapter-off"):
            raise UserError(f"frozen={frozen}: unknown. Use copy or adapter-off.")
        if not policy.sees:
            raise UserError(
                "judge self: this policy cannot see pictures, so it cannot judge its own. Use another judge."
            )
        super().__init__(policy, max_pairs)
        if frozen == "copy":
            self.policy = copy.deepcopy(policy)
        elif not policy.has_adapters:
            raise UserError("frozen=adapter-off: this policy has no adapter. Train it with lora, or use frozen=copy.")
        else:
            self.policy = _AdapterOff(policy)

    @cached_property
    def revision(self) -> str:
        """Short hash of the weights that answer: of the copy, or of the policy's without the adapter."""
        return self.policy.revision


class _AdapterOff:
    def __init__(self, policy: Policy):
        self._policy = policy

    def answer(self, pictures: Tensor, questions: Sequence[str]) -> Tensor:
        with self._policy.reference():
            return self._policy.answer(pictures, questions)

    def log_likelihood(self, pictures: Tensor, texts: Sequence[str]) -> Tensor:
        with self._policy.reference():
            return self._policy.log_likelihood(pictures, texts)

    @property
    def revision(self) -> str:
        weights = [weight for name, weight in self._policy.network.named_parameters() if ".lora_" not in name]
        return digest("self", nn.ParameterList(weights))
