"""From what a configuration calls a policy to the checkpoint, and to the policy: a folder, a run, a model id, or `lab`."""

from pathlib import Path
from typing import Any

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy, split_name
from thinkdraw.runtime import checkpoint
from thinkdraw.types import Policy


def policy_path(name: str) -> str:
    """A checkpoint to load: of a run folder its best one, else its newest; `lab` is the one that is shipped.

    name: may have the policy's class in front, `pkg.mod:Class@runs/mine`.
    """
    if name == "lab":
        from thinkdraw.lab import checkpoint_path

        return str(checkpoint_path())
    family, path = split_name(name)
    if family is not None:
        return name if path is None else f"{family}@{policy_path(path)}"
    if not Path(name, "checkpoints").is_dir():
        return name
    pointer = Path(name, "checkpoints", "best")
    chosen = pointer.with_name(pointer.read_text().strip()) if pointer.is_file() else checkpoint.latest_checkpoint(name)
    if chosen is None:
        raise UserError(
            f"policy {name} is a run folder without a complete checkpoint. Let that run save one, or give a checkpoint."
        )
    return str(chosen)


def load_trained(name: str | Path, precision: str = "bf16", **options: Any) -> Policy:
    """The policy of a checkpoint folder, a run folder, a class of one's own or `lab`, to draw and judge with."""
    return load_policy(policy_path(str(name)), precision=precision, **options)
