"""Cache files of tensors that record their sources and a digest of themselves."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from thinkdraw.runtime.files import atomic_file
from thinkdraw.runtime.inputs.hashing import content_digest

CONTENT = "content"  # key of the metadata: the hash of the tensors themselves


def write_tensors(file: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write the file whole or not at all. about: texts beside the tensors."""
    with atomic_file(file) as temporary:
        save_file(dict(tensors), temporary, {**about, CONTENT: _digest(tensors)})


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors, and the texts beside them.

    Older files have no digest. Raises ValueError that says why.
    """
    try:
        with safe_open(str(file), "pt") as opened:
            about = dict(opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot be read ({error})") from None
    digest = _digest(tensors)
    if about.get(CONTENT, digest) != digest:
        raise ValueError("is not what was written: it is damaged")
    return tensors, about


def _digest(tensors: Mapping[str, Tensor]) -> str:
    return content_digest(part for name in sorted(tensors) for part in (name, tensors[name]))
