"""From a configuration's name or file to the recipe that runs it."""

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
    """Name → file of the configurations inside the package."""
    return {path.stem: path for path in sorted(CONFIGS.glob("*.yaml"))}


def find_config(name: str | Path) -> Path:
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
    """The typed configuration of a shipped name or a YAML file whose `recipe` key says what it configures."""
    path = find_config(name)
    recipe = _recipe_of(path)
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise UserError(f"{path}: recipe={str(recipe)[:80]!r}; known are {', '.join(RECIPES)}.")
    module, model = RECIPES[recipe]
    return load_config(getattr(import_module(module), model), path, overrides)


def run_config(config: Any) -> Path:
    """Run the recipe that a configuration belongs to. Raises UserError for several processes where it does not learn."""
    from thinkdraw.training.settings import TrainSettings  # not above: `thinkdraw list` needs no torch

    if not isinstance(config, TrainSettings):
        refuse_several_processes(f"recipe {config.recipe}")
    return import_module(RECIPES[config.recipe][0]).run(config)


def _recipe_of(path: Path) -> object:
    found = read_yaml_object(path, "`thinkdraw list configs` names the shipped ones.")
    return found.get("recipe")
