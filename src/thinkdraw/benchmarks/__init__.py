"""Benchmarks: a prompt set, judges' rows about pictures, and how they are put together into a score.

`base.py` says what a benchmark is; each is one module with one class. The lab's own suite is `lab.py`.
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
    "unigenbench": "thinkdraw.benchmarks.unigenbench.benchmark:UniGenBench",
}


def benchmark_class(name: str) -> Any:
    """The class called `name`, or at a dotted path `pkg.mod:Class`, for what it says without judges. Raises UserError."""
    return find("benchmark", BENCHMARKS, name)


def load_benchmark(name: str, **settings: Any) -> "Benchmark":
    """The benchmark called `name`, or of the class at a dotted path `pkg.mod:Class`. settings: a judge per role, and its own.

    Raises UserError for an unknown name and for settings that it does not take.
    """
    return make("benchmark", BENCHMARKS, name, settings)
