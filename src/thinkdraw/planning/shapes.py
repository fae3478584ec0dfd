"""The sizes of the model to plan for: a published one's, or a checkpoint's."""

from pathlib import Path
from typing import Any

from thinkdraw.errors import UserError
from thinkdraw.policies import SHAPES, model_type_of, split_name
from thinkdraw.policies.shape import Shape, Shapes
from thinkdraw.runtime.checkpoint import refuse_incomplete
from thinkdraw.runtime.registry import find


def find_shape(name: str) -> Shape:
    """Find the sizes of a published model, by name or id, or of a checkpoint folder.

    Raises UserError.
    """
    family, path = split_name(name)
    if family or path is None:
        raise UserError(f"policy={name}: the planner knows no sizes of {family}; it knows {', '.join(SHAPES)} only.")
    families: dict[str, Any] = {model_type: find("shape", SHAPES, model_type) for model_type in SHAPES}
    published: dict[str, Shapes] = {known: shapes for shapes in families.values() for known in shapes.published()}
    if (known := path.rpartition("/")[2].lower()) in published and not Path(path).is_dir():
        return published[known].of_published(known)
    refuse_incomplete(f"policy {path}")
    if not Path(path, "config.json").is_file():
        raise UserError(
            f"policy={name} is no folder with a config.json, which has the shape to plan for. Give one, or "
            f"policy={' or policy='.join(published)}."
        )
    if (model_type := model_type_of(path)) not in families:
        raise UserError(
            f"policy={name} has model_type={model_type}; the planner knows {', '.join(SHAPES)} only. Give a checkpoint of these."
        )
    try:
        return families[model_type].of_checkpoint(path)
    except (OSError, ValueError) as error:
        raise UserError(f"policy={name}: config.json cannot be read: {' '.join(str(error).split())[:160]}.") from error
