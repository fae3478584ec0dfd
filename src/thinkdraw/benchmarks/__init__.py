"""Benchmarks: prompts, judges' rows about pictures, and a score from the rows.

`base.py` says what a benchmark is. Each has its own folder; the lab's suite is in `lab/`.
"""

from typing import TYPE_CHECKING, Any

from thinkdraw.runtime.registry import find, make

if TYPE_CHECKING:
    from thinkdraw.benchmarks.base import Benchmark

# Name → class; a string, so that a benchmark is imported when it is run and not before.
BENCHMARKS = {
    "compbench": "thinkdraw.benchmarks.compbench.benchmark:CompBench",
    "dpg": "thinkdraw.benchmarks.dpg.benchmark:DpgBench",
    "geneval": "thinkdraw.benchmarks.geneval.benchmark:GenEval",
    "geneval2": "thinkdraw.benchmarks.geneval2.benchmark:GenEval2",
    "own": "thinkdraw.benchmarks.own.benchmark:OwnPrompts",
    "unigenbench": "thinkdraw.benchmarks.unigenbench.benchmark:UniGenBench",
}


def benchmark_class(name: str) -> Any:
    """Find the class with this name or dotted path `pkg.mod:Class`, without judges.

    Raises UserError for an unknown name.
    """
    return find("benchmark", BENCHMARKS, name)


def load_benchmark(name: str, **settings: Any) -> "Benchmark":
    """Make the benchmark with this name or dotted path `pkg.mod:Class`.

    settings: a judge for each role, and the benchmark's own settings.
    Raises UserError for an unknown name and for settings that it does not take.
    """
    return make("benchmark", BENCHMARKS, name, settings)
