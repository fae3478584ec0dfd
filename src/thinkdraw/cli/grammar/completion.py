"""Names that a shell completes behind a verb.

`thinkdraw --install-completion` switches that on.
"""

from collections.abc import Callable
from pathlib import Path

Completion = list[tuple[str, str]]


def _names_of(kind: str, *more: str) -> Callable[[str], Completion]:
    def complete(incomplete: str) -> Completion:
        from thinkdraw.cli.catalog import entries

        names = [(name, "") for name in more] + [(entry.name, entry.what) for entry in entries(kind)]
        return [(name, what) for name, what in names if name.startswith(incomplete)] or paths(incomplete)

    return complete


def paths(incomplete: str) -> Completion:
    """Complete files and folders."""
    folder, _, name = incomplete.rpartition("/")
    here = Path(folder or ("/" if incomplete.startswith("/") else "."))
    try:
        children = sorted(here.iterdir())[:500]
    except OSError:
        return []
    prefix = incomplete[: len(incomplete) - len(name)]
    return [(f"{prefix}{path.name}{'/' * path.is_dir()}", "") for path in children if path.name.startswith(name)]


def checkpoints(incomplete: str) -> Completion:
    """Complete a checkpoint: `lab`, or a folder."""
    return ([("lab", "the checkpoint in the package")] if "lab".startswith(incomplete) else []) + paths(incomplete)


def kinds(incomplete: str) -> Completion:
    """Complete what `list` lists."""
    from thinkdraw.cli.catalog import KINDS

    return [(name, what) for name, (what, _) in KINDS.items() if name.startswith(incomplete)]


def checkpoint_or_benchmark(incomplete: str) -> Completion:
    """Complete the words of `eval`: a checkpoint, then benchmarks."""
    benchmarks = _names_of("benchmarks")(incomplete) if incomplete else []
    return [*benchmarks, *(word for word in checkpoints(incomplete) if word not in benchmarks)]


def store_or_reward(incomplete: str) -> Completion:
    """Complete the words of `score`: a store, then a reward."""
    return [*paths(incomplete), *(_names_of("rewards")(incomplete) if incomplete else [])]


configs = _names_of("configs")
rewards = _names_of("rewards")
