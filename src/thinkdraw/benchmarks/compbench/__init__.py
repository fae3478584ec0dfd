"""T2I-CompBench++ (arXiv 2307.06350): questions, rules, judges, and its reward."""

from thinkdraw.benchmarks.compbench.benchmark import open_asker

__all__ = ["open_asker"]  # configs name it: {name: thinkdraw.benchmarks.compbench:open_asker, …}
