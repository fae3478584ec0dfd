"""Benchmarks: a prompt set, a judge's verdicts, and how they are put together into a score.

Each benchmark is one module that reads its prompts, lays pictures out for the official tool and aggregates verdicts.
"""

from types import ModuleType

from thinkdraw.benchmarks import geneval, lab

BENCHMARKS: dict[str, ModuleType] = {geneval.LABEL: geneval, "lab": lab}
