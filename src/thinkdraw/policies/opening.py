"""From the `policy` of a configuration to a checkpoint.

A policy is named by a folder, a run folder, a Hugging Face model id, or `lab`. `training.run.open_policy` opens the
policy that is trained; `load_trained` opens one that only draws or judges.
"""

from pathlib import Path
from typing import Any, Literal

from thinkdraw.errors import UserError
from thinkdraw.policies import ADAPTER_FOLDER, load_policy, split_adapter, split_name
from thinkdraw.policies.drawing import RECORD
from thinkdraw.runtime import checkpoint
from thinkdraw.runtime.device import pick_device, stored_dtype
from thinkdraw.runtime.formats import name_file_in_errors
from thinkdraw.runtime.inputs.run_inputs import Input
from thinkdraw.types import Policy


def policy_path(name: str) -> str:
    """Resolve a policy's name to a checkpoint for `load_policy`.

    `lab` is the checkpoint in the package. A run folder stands for its best checkpoint, else its newest. Other
    names stay.
    name: may begin with the policy's class, `pkg.mod:Class@runs/mine`; it may end with adapters,
        `lab+runs/lora`.
    """
    if name == "lab":
        from thinkdraw.lab import checkpoint_path

        return str(checkpoint_path())
    family, path = split_name(name)
    if family is not None:
        return name if path is None else f"{family}@{policy_path(path)}"
    base, adapter = split_adapter(name)
    if adapter:
        return f"{policy_path(base)}+{adapter_path(adapter)}"
    if not Path(name, "checkpoints").is_dir():
        return name
    return str(run_checkpoint(name, "best") or run_checkpoint(name, "last"))


def adapter_path(name: str) -> str:
    """Resolve a name to a folder of adapters.

    It names the folder itself, a LoRA run's checkpoint, or a LoRA run, whose best checkpoint is taken.
    """
    folder = Path(policy_path(name))
    return str(folder / ADAPTER_FOLDER) if (folder / ADAPTER_FOLDER).is_dir() else str(folder)


def run_checkpoint(folder: Path | str, select: Literal["best", "last"]) -> Path | None:
    """Find a run's best or last checkpoint.

    The best one is that of the best validation; None where the run has not validated.
    Raises UserError if the run has no complete checkpoint.
    """
    if select == "best":
        pointer = Path(folder, "checkpoints", "best")  # a file with the name of the best checkpoint's folder
        if not pointer.is_file():
            return None
        way_out = "It names the best checkpoint's folder. Remove it to use the newest checkpoint."
        with name_file_in_errors(pointer, way_out):
            name = pointer.read_text(encoding="utf-8").strip()
        if checkpoint.checkpoint_step(name) is None or not pointer.with_name(name).is_dir():
            raise UserError(f"{pointer} names {name[:80]!r}, which is no checkpoint of this run. {way_out}")
        return pointer.with_name(name)
    last = checkpoint.latest_checkpoint(folder)
    if last is None:
        raise UserError(
            f"policy {folder} is a run folder without a complete checkpoint. Let the run save one, or name a checkpoint."
        )
    return last


def policy_input(name: str, revision: str) -> Input:
    """Record what a setting `policy` stands for: the checkpoint and its content.

    revision: of the loaded policy; it stands for the weights. The small files beside the weights are hashed.
    """
    path = policy_path(name)
    folder = split_name(path)[1]
    files = (
        [f for end in ("json", "jinja", "model", "txt") for f in sorted(Path(folder).glob(f"*.{end}"))]
        if folder
        else []
    )
    beside = [file for file in files if file.name not in (checkpoint.MARKER, checkpoint.STATE_FILE, RECORD)]
    content = [item for file in beside for item in (file.name, file.read_bytes())]
    return Input.of(name if path == name or name == "lab" else f"{name} ({path})", [revision, *content])


def load_trained(
    name: str | Path, precision: str = "bf16", *, device: str = "auto", dtype: str | None = None, **options: Any
) -> Policy:
    """Load a policy to draw or judge with, by any name that a configuration accepts.

    device: auto takes an accelerator where there is one. dtype: of the weights, fp32 or bf16; None is the checkpoint's own on
    an NVIDIA GPU, where fp32 would need twice the memory, and fp32 elsewhere.
    """
    path, where = policy_path(str(name)), pick_device(device)
    checkpoint.check_digests(split_name(path)[1] or path)
    if dtype is None:
        has_files = split_name(path)[0] is None  # a class of its own has files of its own
        dtype = stored_dtype(split_adapter(path)[0]) if where.type == "cuda" and has_files else "fp32"
    return load_policy(path, device=str(where), dtype=dtype, precision=precision, **options)
