"""Trainable generators behind one protocol, `types.Policy`.

A model family is one entry in each of the dicts below. Your own family needs no entry: `policy=my_family:MyPolicy`
names its class, in an installed package or in the current folder. `policy=my_family:MyPolicy@runs/mine` names a
checkpoint of it. See `examples/my_policy`.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from thinkdraw.errors import UserError
from thinkdraw.policies.drawing import read_record
from thinkdraw.runtime.registry import find, own_code

if TYPE_CHECKING:
    from thinkdraw.policies.lora import LoraSettings
    from thinkdraw.types import Policy

# config.model_type → the class, as a string: transformers is imported only when a policy is loaded.
POLICIES = {
    "janus": "thinkdraw.policies.janus.policy:JanusPolicy",
    "multi_modality": "thinkdraw.policies.janus.policy:JanusPolicy",  # DeepSeek's own layout of the same weights
}
# Optional parts of a family: sizes for `thinkdraw plan` (shape.py), and a builder of small checkpoints (building.py).
SHAPES = {name: "thinkdraw.policies.janus.shape:JanusShape" for name in POLICIES}
BUILDERS = {"janus": "thinkdraw.policies.janus.building:JanusBuilder"}

# Further layouts that a policy can be written in, see `publishing`; each takes a policy and a folder.
LAYOUTS = {"deepseek": "thinkdraw.policies.janus.loading:write_deepseek"}
ADAPTER_FOLDER = "adapter"  # of a checkpoint of a LoRA run: the adapters alone, as peft writes them


class Family(Protocol):
    """A class of policies, as `load_policy` uses it."""

    def load(self, path: str | None, *, device: str, dtype: str, lora: LoraSettings | None, **options: Any) -> Policy:
        """Load a policy.

        path: a checkpoint, or None where the class was named without one.
        dtype: of the weights.
        options: precision, and whatever else the class accepts.
        Raises UserError.
        """
        ...


def load_policy(
    path: Path | str, *, device: str = "cpu", dtype: str = "fp32", lora: LoraSettings | None = None, **options: Any
) -> Policy:
    """Load a policy from a checkpoint folder, a Hugging Face model id, or a class.

    A class is named `pkg.mod:Class@checkpoint`. Without one, the checkpoint's `config.model_type` chooses the
    family from `POLICIES`, so that a checkpoint cannot name code to run. `policies/opening.py` resolves run folders
    and `lab`.
    `BASE+ADAPTER` merges a folder of LoRA adapters, as peft writes it, into a base.
    dtype: of the weights, fp32 or bf16.
    options: what the family's class accepts, see `JanusPolicy`.
    Raises UserError.
    """
    name, checkpoint = split_name(str(path))
    if name is None:
        checkpoint, adapter = split_adapter(str(checkpoint))
        options |= {"adapter": adapter} if adapter else {}
        name = model_type_of(checkpoint)
        if name not in POLICIES:
            raise UserError(
                f"policy {path} has model_type={name}, which cannot draw; these can: {', '.join(POLICIES)}. Give a checkpoint "
                f"of one of these families, or name your own class: policy=pkg.mod:Class@{path}."
            )
    family: Any = find("policy", POLICIES, name)
    if not hasattr(family, "load"):
        raise UserError(f"policy {path}: {name} has no classmethod `load`. Give a class like examples/my_policy's.")
    with nullcontext() if name in POLICIES else own_code(f"policy {path}"):
        policy = family.load(checkpoint, device=device, dtype=dtype, lora=lora, **options)
    policy.drawing = read_record(checkpoint, options.get("adapter"))
    return policy


def split_name(name: str) -> tuple[str | None, str | None]:
    """Split `pkg.mod:Class@checkpoint` into class and checkpoint.

    Either may be None, not both.
    """
    first, _, checkpoint = name.partition("@")
    if ":" not in first or Path(name).exists():
        return None, name
    return first, checkpoint or None


def split_adapter(path: str) -> tuple[str, str | None]:
    """Split `BASE+ADAPTER` into base and adapters.

    The path of an existing folder with a plus in its name stays whole.
    """
    base, plus, adapter = path.rpartition("+")
    return (base, adapter) if plus and base and adapter and not Path(path).exists() else (path, None)


def is_policy(path: str) -> bool:
    """Whether `load_policy` opens `path`, judged by its name or its config.json.

    Raises UserError where there is neither.
    """
    return split_name(path)[0] is not None or model_type_of(path) in POLICIES


def model_type_of(path: str) -> str:
    """Read `model_type` in the checkpoint's config. Raises UserError."""
    from transformers import PreTrainedConfig

    from thinkdraw.runtime.checkpoint import refuse_incomplete

    folder = Path(path)
    # `runs/mine` has the form of a model id. Where its first folder is here, it is meant for a folder that is missing.
    begins_here = folder.parts[:1] == ("runs",) or Path(*folder.parts[:1]).is_dir()
    looks_local = folder.is_absolute() or path.startswith((".", "~")) or path.count("/") != 1 or begins_here
    if not folder.is_dir() and looks_local:
        raise UserError(f"policy {path} is not a folder here. {_way_out_of_missing(folder)}")
    refuse_incomplete(f"policy {path}")
    if folder.is_dir() and not (folder / "config.json").exists():
        runs = sorted(str(run.parent) for run in folder.glob("*/checkpoints") if run.is_dir())
        way_out = f"It holds runs; give one of them: {', '.join(runs)}." if runs else (
            "Give the folder that holds config.json and the weights, or a run folder with a checkpoint."
        )  # fmt: skip
        raise UserError(f"policy {path} has no config.json. {way_out}")
    try:
        return PreTrainedConfig.get_config_dict(path)[0].get("model_type", "none")
    except (OSError, ValueError) as error:
        line = " ".join(str(error).split())[:200].rstrip(".")
        raise UserError(f"policy {path} is neither a folder here nor a readable model id: {line}.") from error


def _way_out_of_missing(folder: Path) -> str:
    """Say what makes a missing folder: most shipped configurations write runs/NAME."""
    if folder.parent == Path("runs") and (Path(__file__).parents[1] / "configs" / f"{folder.name}.yaml").is_file():
        return f"`thinkdraw train {folder.name}` makes it. Run that first, or name another checkpoint, such as runs/quickstart/sft."
    return "Give a checkpoint folder, a run folder, lab, or a Hugging Face model id."
