"""T2I-CompBench++ (arXiv 2307.06350): what it asks of each prompt, its rules, its judges, and its score as a reward."""

from thinkdraw.benchmarks.compbench.benchmark import open_asker

__all__ = ["open_asker"]  # configs name it: {name: thinkdraw.benchmarks.compbench:open_asker, …}
