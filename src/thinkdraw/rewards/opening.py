"""Open a reward and its frozen judges by their names, as configurations give them.

A reward's setting names a judge if the parameter's type, in the reward's signature, is a judge's protocol: `Scorer`,
`Questioner`, `Detector`, `Writer` or one that the reward defines. The setting's value is a judge's name, or a mapping
of its name and settings: `{questioner: {name: vlm, path: …}}`.
"""

import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import Field, model_validator
from torch import nn

from thinkdraw.config import StrictModel
from thinkdraw.errors import UserError
from thinkdraw.judges import JUDGES, load_judge
from thinkdraw.policies.opening import load_trained
from thinkdraw.rewards import REWARDS, load_reward
from thinkdraw.runtime.device import pick_device
from thinkdraw.runtime.registry import find
from thinkdraw.types import Policy, Reward

# Reward → (its setting for a judge, the judge that it asks by default, that judge's setting for a checkpoint).
# So the setting may be left out, or be just a checkpoint's path.
USUAL_JUDGE = {"lab-judge": ("questioner", "policy", "policy"), "lab-clip": ("scorer", "lab-clip", "path")}


class RewardSettings(StrictModel):
    """A reward by name, and what it is made with."""

    name: str = Field(
        default="lab-detector", description="A name of `thinkdraw list rewards`, or pkg.mod:Reward of your own."
    )
    settings: dict[str, Any] = Field(
        default={}, description="What the reward is made with; `thinkdraw explain reward.NAME` lists its settings."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        """Take a bare name for a reward without settings: `[lab-detector, lab-judge]`."""
        return {"name": value} if isinstance(value, str) else value


def open_reward(name: str, run_policy: Policy | None = None, /, **settings: Any) -> Reward:
    """Open the judges and rewards that the settings name, then make the reward.

    run_policy: the policy that a run trains, for judge `self`.
    Raises UserError for what cannot be found or opened, and for a judge of another kind than the reward asks.
    """
    if name in USUAL_JUDGE:
        setting, judge, checkpoint = USUAL_JUDGE[name]
        named = settings.setdefault(setting, judge)
        if isinstance(named, str) and named not in JUDGES:
            settings[setting] = judge if named == "lab" else {"name": judge, checkpoint: named}
    for setting, kind in _named_settings(find("reward", REWARDS, name)).items():
        value = settings.get(setting)
        if kind is Reward and isinstance(value, Mapping):
            settings[setting] = {part: _open_part(part, spec, run_policy) for part, spec in value.items()}
        elif kind is not Reward and isinstance(value, str | Mapping):
            settings[setting] = _open_judge_of_kind(kind, value, run_policy, f"reward {name!r}: {setting}")
    return load_reward(name, **settings)


def open_judge(name: str, run_policy: Policy | None = None, /, **settings: Any) -> Any:
    """Make a judge; for the judges `policy` and `self`, open the policy first.

    Their setting `policy` may be `lab`, a checkpoint or a run folder, which is opened frozen on the setting `device`.
    Without it, judge `policy` is the lab's, and judge `self` is `run_policy`, or a copy of it as it is now.
    Prints on standard error where a judge computes in this process, and in which precision. Raises UserError.
    """
    if name in ("policy", "self"):
        policy = settings.get("policy", "lab" if name == "policy" else run_policy)
        if policy is None:
            raise UserError(
                "judge 'self' is the policy that a run trains, and no policy is trained here. Name a checkpoint: "
                "{name: policy, policy: PATH}."
            )
        if isinstance(policy, str):
            policy = load_trained(policy, device=str(pick_device(settings.pop("device", "auto"))))
            policy.freeze()
        settings["policy"] = policy
    judge = load_judge(name, **settings)
    _print_device(name, judge)
    return judge


def on_device(name: str, settings: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Add `device` to a judge's settings, if the judge takes one and none is set."""
    takes = name == "policy" or "device" in inspect.signature(find("judge", JUDGES, name)).parameters
    return {"device": device, **settings} if takes else dict(settings)


def _print_device(name: str, judge: Any) -> None:
    """Print on standard error where a judge's network computes, and its precision."""
    network = getattr(judge, "model", None) or getattr(getattr(judge, "policy", None), "network", None)
    weight = next(network.parameters(), None) if isinstance(network, nn.Module) else None
    if weight is not None and os.environ.get("RANK", "0") == "0":
        print(f"judge {name}: on {weight.device}, {str(weight.dtype).removeprefix('torch.')}", file=sys.stderr)


def _named_settings(maker: Any) -> dict[str, Any]:
    """Map each parameter that names judges or rewards to what it takes.

    That is the judge's protocol, or `Reward` for a mapping of rewards. maker: the reward's class or function.
    """
    try:
        hints = get_type_hints(maker.__init__ if inspect.isclass(maker) else maker)
    except (NameError, TypeError):  # a user's reward may be an object, or name types that only a type checker imports
        return {}
    kinds = {}
    for name, hint in hints.items():
        if get_origin(hint) is Mapping and get_args(hint)[-1] is Reward:
            kinds[name] = Reward
        # The type itself, or the members of `Scorer | None`. A judge's protocol can be checked at run time.
        elif protocols := [kind for kind in (hint, *get_args(hint)) if getattr(kind, "_is_runtime_protocol", False)]:
            kinds[name] = protocols[0]
    return kinds


def _open_judge_of_kind(kind: Any, spec: str | Mapping[str, Any], run_policy: Policy | None, where: str) -> Any:
    """Open the judge that a setting names, and check that it is of the right kind.

    kind: the protocol that it must follow. where: the setting, for errors.
    """
    name, settings = _name_and_settings(spec, f"{where} has no name of a judge")
    judge = open_judge(name, run_policy, **settings)
    if not isinstance(judge, kind):
        raise UserError(f"{where}={name}: this judge is no {kind.__name__}, which the reward needs. Name one that is.")
    return judge


def _open_part(part: str, spec: Any, run_policy: Policy | None) -> Reward:
    """Open one of the rewards of `combined`, which calls it `part`.

    spec: its name; its settings, with the name among them unless that is `part`; or the reward itself.
    """
    if not isinstance(spec, str | Mapping):
        return spec
    settings = spec if isinstance(spec, str) else {"name": part, **spec}
    name, settings = _name_and_settings(settings, f"reward {part!r} has no name of a reward")
    return open_reward(name, run_policy, **settings)


def _name_and_settings(spec: str | Mapping[str, Any], complaint: str) -> tuple[str, dict[str, Any]]:
    """Split a judge's or reward's entry into its name and its settings."""
    settings = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise UserError(f"{complaint}. Write it as {{name: …}}, its settings beside it.")
    return name, settings
