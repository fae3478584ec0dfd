"""What there is to choose from, each entry with a line on what it is.

Everything is read from source and YAML files: importing the registries would import torch, which takes seconds.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
# Registry → the file that has it as a dict of "module:Class" strings, and the dict's name.
_REGISTRIES = {
    "rewards": ("rewards/__init__.py", "REWARDS"),
    "judges": ("judges/__init__.py", "JUDGES"),
    "benchmarks": ("benchmarks/__init__.py", "BENCHMARKS"),
    "policies": ("policies/__init__.py", "POLICIES"),
}
_LAB_BENCHMARKS = {
    "lab-geneval": "GenEval's six tasks about the lab's shapes, judged by the exact detector.",
    "lab-compbench": "T2I-CompBench's attributes, places, counts and complex prompts, about the lab's shapes.",
    "lab-dense": "Long descriptions with a graph of questions as DPG-Bench has them, about the lab's shapes.",
}
_OBJECTIVES = {
    "sft": "Cross-entropy of written thoughts and pictures (recipes sft and rejection).",
    "grpo": "Clipped token ratio, mean over each row, then over rows (recipe grpo, variant=grpo; Shao et al. 2024).",
    "dapo": "Clipped token ratio, mean over all tokens; clip_high apart from clip_low (variant=dapo; Yu et al. 2025).",
    "bnpo": "Another name of dapo's mean over all tokens (variant=bnpo).",
    "dr_grpo": "Clipped token ratio over a fixed budget, advantages without std (variant=dr_grpo; Liu et al. 2025).",
    "gspo": "One ratio for each row and modality in place of one for each token (variant=gspo; Zheng et al. 2025).",
    "cispo": "REINFORCE weighted by a capped ratio, so that no token loses its gradient (variant=cispo; MiniMax 2025).",
    "sigmoid": "DPO's logistic loss on pairs (recipe preference, loss_type=sigmoid; Rafailov et al. 2023).",
    "hinge": "A hinge on DPO's margin (recipe preference, loss_type=hinge; Zhao et al. 2023).",
    "ipo": "A squared distance of the margin from a target (recipe preference, loss_type=ipo; Azar et al. 2023).",
    "sigmoid_norm": "DPO on log-probs per token, so that length does not count (loss_type=sigmoid_norm).",
    "rebel": "Regression of the log-ratio on the reward gap (recipe preference, objective=rebel; Gao et al. 2024).",
    "verifier": "Cross-entropy of yes and no about finished and unfinished pictures (recipe verifier).",
}


@dataclass(frozen=True)
class Entry:
    """A name, what it is, and what it costs where that is known."""

    name: str
    what: str
    cost: str = ""

    def as_dict(self) -> dict[str, str]:
        """For a program; `cost` only where there is one."""
        return {"name": self.name, "what": self.what} | ({"cost": self.cost} if self.cost else {})


def entries(kind: str) -> list[Entry]:
    """Return what is to be chosen from, in its registry's order. kind: one of `KINDS`."""
    return list(KINDS[kind][1]())


def _registry(kind: str) -> Iterator[Entry]:
    file, name = _REGISTRIES[kind]
    for key, target in _dict_in(PACKAGE / file, name).items():
        module, _, attribute = target.partition(":")
        yield Entry(key, _summary(module, attribute))


def _benchmarks() -> Iterator[Entry]:
    yield from _registry("benchmarks")
    yield from (Entry(name, what) for name, what in _LAB_BENCHMARKS.items())


def _configs() -> Iterator[Entry]:
    for path in sorted((PACKAGE / "configs").glob("*.yaml")):
        what, facts = header_of(path)
        hardware, minutes = facts.get("hardware", ""), facts.get("minutes", "")
        amount = minutes.partition(" (")[0]
        unit = "minute" if amount == "1" else "minutes"
        time = "time not measured" if amount.startswith("not measured") else f"{amount} {unit}"
        yield Entry(path.stem, what, ", ".join(text for text in (hardware, time) if text))


def _recipes() -> Iterator[Entry]:
    for name, (module, _) in _dict_in(PACKAGE / "recipes/catalog.py", "RECIPES").items():
        yield Entry(name, _summary(module, ""))


KINDS: dict[str, tuple[str, Callable[[], Iterator[Entry]]]] = {
    "configs": ("Configurations that `train`, `sweep` and `corpus write` take, and what each costs.", _configs),
    "rewards": ("What GRPO learns from, and `score` and `serve` judge by.", lambda: _registry("rewards")),
    "judges": ("Frozen models that rewards and benchmarks ask.", lambda: _registry("judges")),
    "benchmarks": ("Prompt sets with their rules, for `eval`.", _benchmarks),
    "objectives": ("Losses that recipes learn by.", lambda: (Entry(n, what) for n, what in _OBJECTIVES.items())),
    "policies": ("Families of models that think and draw.", lambda: _registry("policies")),
    "recipes": ("Ways to train: the `recipe` of a configuration.", _recipes),
}


def header_of(path: Path) -> tuple[str, dict[str, str]]:
    """Read the comment at a YAML's head: its first sentence, and its facts.

    Facts are hardware, minutes and expected.
    """
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# yaml-language-server:"):  # the schema, for editors
            lines.append(line[1:].strip())
    facts = dict(re.findall(r"^(hardware|minutes|expected): *(.*)$", "\n".join(lines), flags=re.MULTILINE))
    paragraph = " ".join(lines[: lines.index("")] if "" in lines else lines)
    return first_sentence(paragraph), facts


def first_sentence(text: str) -> str:
    """Return a paragraph's first sentence."""
    return re.split(r"(?<=[.?!])\s+(?=[A-Z0-9`])", " ".join(text.split()), maxsplit=1)[0]


def _summary(module: str, attribute: str) -> str:
    """Return the first sentence of a docstring: a module's, a class's or a function's."""
    described: ast.Module | ast.ClassDef | ast.FunctionDef
    described = _tree(PACKAGE.parent / Path(*module.split(".")).with_suffix(".py"), module)
    for node in described.body if attribute else ():
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
            described = node
            break
    text = ast.get_docstring(described) or ""
    return first_sentence(text.partition("\n\n")[0])


@cache
def _tree(file: Path, module: str) -> ast.Module:
    file = file if file.is_file() else file.with_suffix("") / "__init__.py"
    return ast.parse(file.read_text(encoding="utf-8"), module)


def _dict_in(file: Path, name: str) -> dict:
    """Return a dict of literals that a file assigns to a name."""
    for node in _tree(file, name).body:
        if isinstance(node, ast.Assign):
            targets: list[ast.expr] = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        if node.value and any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)
    raise LookupError(f"{file} has no {name}")
