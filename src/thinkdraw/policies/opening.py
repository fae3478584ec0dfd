"""From the `policy` of a configuration to a checkpoint: a folder, a run folder, a Hugging Face model id, or `lab`.

`training.run.open_policy` opens the policy that is trained; `load_trained` here one that only draws or judges.
"""

from pathlib import Path
from typing import Any, Literal

from thinkdraw.errors import UserError
from thinkdraw.policies import load_policy, split_name
from thinkdraw.runtime import checkpoint
from thinkdraw.runtime.formats import name_file_in_errors
from thinkdraw.runtime.inputs.run_inputs import Input
from thinkdraw.types import Policy


def policy_path(name: str) -> str:
    """Resolve a policy's name to a checkpoint for `load_policy`.

    `lab` is the checkpoint in the package; of a run folder it is the best one, else the newest; other names stay.
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
    return str(run_checkpoint(name, "best") or run_checkpoint(name, "last"))


def run_checkpoint(folder: Path | str, select: Literal["best", "last"]) -> Path | None:
    """A run's checkpoint: of the best validation, None where the run has not validated, or the last one.

    Raises UserError if the run has none.
    """
    if select == "best":
        pointer = Path(folder, "checkpoints", "best")  # a file with the name of the best checkpoint's folder
        if not pointer.is_file():
            return None
        way_out = "It names the best checkpoint's folder: remove it, and the newest one is taken."
        with name_file_in_errors(pointer, way_out):
            name = pointer.read_text(encoding="utf-8").strip()
        if checkpoint.checkpoint_step(name) is None or not pointer.with_name(name).is_dir():
            raise UserError(f"{pointer} names {name[:80]!r}, which is no checkpoint there. {way_out}")
        return pointer.with_name(name)
    last = checkpoint.latest_checkpoint(folder)
    if last is None:
        raise UserError(
            f"policy {folder} is a run folder without a complete checkpoint. Let that run save one, or give a checkpoint."
        )
    return last


def of_policy(name: str, revision: str) -> Input:
    """What a setting `policy` stands for: the checkpoint that was found, its weights and the small files beside them.

    revision: of the policy when it was loaded, which stands for the weights.
    """
    path = policy_path(name)
    folder = split_name(path)[1]
    files = (
        [f for end in ("json", "jinja", "model", "txt") for f in sorted(Path(folder).glob(f"*.{end}"))]
        if folder
        else []
    )
    beside = [file for file in files if file.name not in (checkpoint.MARKER, checkpoint.STATE_FILE)]
    content = [part for file in beside for part in (file.name, file.read_bytes())]
    return Input.of(name if path == name or name == "lab" else f"{name} ({path})", [revision, *content])


def load_trained(name: str | Path, precision: str = "bf16", **options: Any) -> Policy:
    """Load a policy that was trained, by any name that a configuration takes, to draw or judge with."""
    path = policy_path(str(name))
    checkpoint.check_digests(split_name(path)[1] or path)
    return load_policy(path, precision=precision, **options)
