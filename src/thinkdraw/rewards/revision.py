"""Which judge exactly: short hashes, so that verdicts of two judges never mix."""

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from thinkdraw.errors import UserError
from thinkdraw.rewards.judges_of import judges_of
from thinkdraw.rewards.user_rewards import UserReward
from thinkdraw.runtime.inputs.hashing import content_digest
from thinkdraw.runtime.registry import is_own_code
from thinkdraw.types import Reward
from thinkdraw.version import __version__

_SAMPLES = 4096  # weights that are hashed of each tensor, as in a policy's revision: fine-tuning moves all of them


def revision_of(reward: Reward, settings: dict[str, Any]) -> str:
    """Hash a reward's name, settings, version and judges; 12 hex digits.

    settings: those that the reward was made with.
    """
    kind = type(reward.call if isinstance(reward, UserReward) else reward).__qualname__
    facts = [reward.name, kind, settings, __version__]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    digest.update((judges_revision(reward) or "").encode())
    return digest.hexdigest()[:12]


def judges_revision(reward: Reward, *, former: bool = False) -> str | None:
    """Return the reward's own `revision`, or hash its judges' revisions and weights.

    None where there are neither, as for pure rules. A judge in another process has the revision that it reports.
    former: as older versions wrote it.
    """
    if reward.revision:
        return reward.revision
    digest, is_empty = hashlib.sha256(), True
    for path, judge in judges_of(reward, within_revisions=False):
        if judge.revision:
            digest.update(f"{path} {judge.former_revision if former else judge.revision}".encode())
        elif isinstance(judge.target, nn.Module):
            digest.update(path.encode())
            for name, tensor in sorted(judge.target.state_dict().items()):
                flat = tensor.flatten()
                digest.update(f"{name}{tuple(tensor.shape)}".encode())
                digest.update(flat[:: max(1, len(flat) // _SAMPLES)].float().cpu().numpy().tobytes())
        else:
            continue
        is_empty = False
    return None if is_empty else digest.hexdigest()[:12]


def judges_and_code_revision(reward: Reward) -> str | None:
    """Hash what decides the verdicts besides settings: judges and the user's own code.

    None where there is neither, as for shipped rules.
    """
    contents = [judges_revision(reward), *(file.read_bytes() for file in user_code_files(reward))]
    return content_digest(contents)[:12] if contents[1:] else judges_revision(reward)


def user_code_files(reward: Reward) -> list[Path]:
    """Return the files of the user's own code among a reward and its judges.

    They belong neither to this package nor to an installed one.
    """
    targets = [judge.target for _, judge in judges_of(reward)]
    makers = [thing if inspect.isroutine(thing) else type(thing) for thing in targets]
    modules = {sys.modules.get(str(getattr(maker, "__module__", ""))) for maker in makers}
    files = {Path(file) for module in modules if (file := getattr(module, "__file__", None))}
    return sorted(file for file in files if is_own_code(file))


def refuse_changed_judges(before: Mapping[str, str | None], now: Mapping[str, str | None], where: Any) -> None:
    """Raise UserError if a reward's revision is not the one that the run began with.

    where: the run's folder.
    """
    for name, revision in now.items():
        if revision != before.get(name, revision):
            raise UserError(
                f"{where} began with revision {before[name]} of reward {name}, and now it has {revision}: its judges have "
                "other weights or settings. Give it the former judges, or choose another out=."
            )
