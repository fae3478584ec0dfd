"""Recipes by name, and the shipped configurations."""

import difflib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from thinkdraw.config import StrictModel, load_config
from thinkdraw.errors import UserError, refuse_several_processes
from thinkdraw.runtime.formats import read_yaml_object

# recipe → (module, class of its configuration); the module has run(config) -> Path.
RECIPES = {
    "tokenizer": ("thinkdraw.make_lab.tokenizer", "TokenizerConfig"),
    "pretrain": ("thinkdraw.make_lab.pretrain", "PretrainConfig"),
    "clip": ("thinkdraw.make_lab.clip", "ClipConfig"),
    "sft": ("thinkdraw.recipes.sft", "SftConfig"),
    "grpo": ("thinkdraw.recipes.grpo", "GrpoConfig"),
    "preference": ("thinkdraw.recipes.preference", "PreferenceConfig"),
    "rejection": ("thinkdraw.recipes.rejection", "RejectionConfig"),
    "iterate": ("thinkdraw.recipes.iterate", "IterateConfig"),
    "corpus": ("thinkdraw.recipes.corpus", "CorpusConfig"),
    "verifier_data": ("thinkdraw.recipes.verifier_data", "VerifierDataConfig"),
    "verifier": ("thinkdraw.recipes.verifier", "VerifierConfig"),
    "sweep": ("thinkdraw.studies.sweep", "SweepConfig"),
}
CONFIGS = Path(__file__).parent.parent / "configs"


def shipped_configs() -> dict[str, Path]:
    """Map the names of the package's configurations to their files."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}


def find_config(name: str | Path) -> Path:
    """Find the file of a configuration.

    name: of a shipped configuration, or a path to a YAML file, which is returned as it is. Raises UserError.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    known = shipped_configs()
    if str(name) in known:
        return known[str(name)]
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"config {name!r} is neither a .yaml file nor one of {', '.join(known)}.{hint}")


def read_config(name: str | Path, overrides: Sequence[str] = ()) -> StrictModel:
    """Read a configuration as the settings of the recipe that it names.

    name: see `find_config`. overrides: `key.sub=value`. Raises UserError.
    """
    path = find_config(name)
    recipe = _recipe_of(path)
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise UserError(f"{path}: recipe={str(recipe)[:80]!r} is not known. Set recipe to one of {', '.join(RECIPES)}.")
    module, model = RECIPES[recipe]
    return load_config(getattr(import_module(module), model), path, overrides)


def run_config(config: Any) -> Path:
    """Run the recipe of a configuration, and return the folder that it wrote.

    Raises UserError, also if several processes run a recipe that only one can run.
    """
    from thinkdraw.training.settings import TrainSettings  # imported here because `thinkdraw list` needs no torch

    if not isinstance(config, TrainSettings):
        refuse_several_processes(f"recipe {config.recipe}")
    return import_module(RECIPES[config.recipe][0]).run(config)


def _recipe_of(path: Path) -> object:
    return read_yaml_object(path, "`thinkdraw list configs` names the shipped ones.").get("recipe")
