"""The policy as its own judge, frozen while the policy learns."""

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
    """Answers yes-or-no questions with the policy as it was before this run.

    frozen "copy": a copy of the policy, taken now; it needs the policy's memory a second time. Make the judge before
    the first update, and when a run resumes, from the checkpoint that the run began with.
    frozen "adapter-off": the policy itself, with its adapter switched off while it answers; this needs no memory.
    max_pairs: (picture, question) pairs per call of the policy.
    Raises UserError for a policy that cannot see, and for "adapter-off" of a policy without an adapter: such a judge
    would learn with the policy.
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
        """Short hash of the weights that answer: the copy's, or those under the adapter."""
        return self.policy.revision


class _AdapterOff:
    """The policy as a judge that answers with its adapter switched off."""

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
