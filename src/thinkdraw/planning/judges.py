"""Memory of a run's judges on the policy's GPU, from their weights."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import safe_open

from thinkdraw.errors import UserError
from thinkdraw.judges import JUDGES
from thinkdraw.planning.memory import ITEMSIZE
from thinkdraw.policies.opening import policy_path
from thinkdraw.rewards.opening import USUAL_JUDGE, RewardSettings
from thinkdraw.runtime.registry import find

SERVED = frozenset({"openai", "http"})
CHECKPOINT = ("path", "policy", "model")  # settings of a judge that name its weights


def judges_on_the_gpu(rewards: Sequence[RewardSettings], policy: str) -> tuple[float, list[str]]:
    """Sum the bytes of the weights of judges on the GPU; list those not counted.

    A judge is not counted if its weights are not on this machine.
    policy: the one that is trained, for the judge `self`, which is a copy of it.
    """
    total, unknown = 0.0, []
    for name, overrides in {str(judge): judge for reward in rewards for judge in _judges_of(reward)}.values():
        settings = {**_defaults(name), **overrides}
        if name in SERVED or str(settings.get("device", "cpu")).startswith("cpu"):
            continue
        usual = {"self": policy, "policy": "lab"}.get(name, "")
        named = next((str(settings[key]) for key in CHECKPOINT if settings.get(key)), usual)
        weights = _numbers_in(named) if named else None
        if weights is None:
            unknown.append(f"{name} ({named})" if named else name)
        else:
            total += weights * ITEMSIZE.get(str(settings.get("dtype", "fp32")), 4)
    return total, unknown


def _defaults(judge: str) -> dict[str, object]:
    """Read the defaults of a judge's settings. Raises UserError for an unknown judge."""
    if judge in ("policy", "self"):  # opened as a policy is, see `rewards.opening.open_judge`
        return {"device": "auto"}
    parameters = inspect.signature(find("judge", JUDGES, judge)).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _judges_of(reward: RewardSettings) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Find the judges in a reward's settings, and in those of rewards inside it.

    Yields (name, settings).
    """
    if reward.name in USUAL_JUDGE:
        setting, judge, checkpoint = USUAL_JUDGE[reward.name]
        named = reward.settings.get(setting)
        yield (judge, {checkpoint: named}) if isinstance(named, str) else (judge, {})
    for value in reward.settings.values():
        if isinstance(value, str) and value in JUDGES and reward.name not in USUAL_JUDGE:
            yield value, {}
        if not isinstance(value, Mapping):
            continue
        if isinstance(name := value.get("name"), str):
            yield name, {k: v for k, v in value.items() if k != "name"}
        else:  # rewards by part, each a name or a mapping
            for reward_part in value.values():
                inner = {"name": reward_part} if isinstance(reward_part, str) else reward_part
                if isinstance(inner, Mapping):
                    yield from _judges_of(RewardSettings.model_validate(inner))


def _numbers_in(named: str) -> int | None:
    """Count the numbers in a checkpoint's safetensors; None if they are not here."""
    try:
        files = sorted(Path(policy_path(named)).glob("*.safetensors"))
    except UserError:
        return None
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  no mapping
                size = 1
                for length in tensors.get_slice(name).get_shape():
                    size *= length
                total += size
    return total or None
