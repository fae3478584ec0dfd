"""Which judge exactly: a short hash of a reward's settings and weights, so that verdicts of two are never mixed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

import thinkdraw
from thinkdraw.errors import UserError
from thinkdraw.rewards.judges_behind import judges_behind
from thinkdraw.rewards.own import OwnReward
from thinkdraw.types import Reward

_PLACES = 4096  # looked at in each tensor, as a policy's revision does: fine-tuning moves all of them


def revision_of(reward: Reward, settings: dict[str, Any]) -> str:
    """12 hex digits of name, settings, version and judges. settings: what the reward was made with."""
    kind = type(reward.call if isinstance(reward, OwnReward) else reward).__qualname__
    facts = [reward.name, kind, settings, thinkdraw.__version__]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update((judges_revision(reward) or "").encode())
    return digest.hexdigest()[:12]


def judges_revision(reward: Reward) -> str | None:
    """The reward's own `revision`, else a hash of its judges' revisions and of weights; None where there are neither.

    Rules have none. A judge that is not in this process has the revision that it reports.
    """
    if reward.revision:
        return reward.revision
    digest, is_empty = hashlib.sha256(), True
    for path, judge in judges_behind(reward, within_revisions=False):
        if judge.revision:
            digest.update(f"{path} {judge.revision}".encode())
        elif isinstance(judge.thing, nn.Module):
            digest.update(path.encode())
            for name, tensor in sorted(judge.thing.state_dict().items()):
                flat = tensor.flatten()
                digest.update(f"{name}{tuple(tensor.shape)}".encode())
                digest.update(flat[:: max(1, len(flat) // _PLACES)].float().cpu().numpy().tobytes())
        else:
            continue
        is_empty = False
    return None if is_empty else digest.hexdigest()[:12]


def refuse_other_judges(before: Mapping[str, str | None], now: Mapping[str, str | None], where: Any) -> None:
    """Raise UserError if a reward that a run goes on with has another revision than it began with. where: the run's folder."""
    for name, revision in now.items():
        if revision != before.get(name, revision):
            raise UserError(
                f"{where} began with revision {before[name]} of reward {name}, and this is {revision}: other weights or "
                "settings. Give it the former judge, or choose another out=."
            )
