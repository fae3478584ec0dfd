"""What the benches of the lab checkpoint share: their arguments, and how often and in which order they measure."""

import argparse
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from thinkdraw.lab import checkpoint_path

Name = TypeVar("Name", bound=Hashable)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """--checkpoint, --group-size, --guidance-scale, --threads and --repeats."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(checkpoint_path()))
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--guidance-scale", type=float, default=5.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def timed(make: dict[Name, Callable[[], Any]], repeats: int) -> dict[Name, list[float]]:
    """Seconds of each, `repeats` times in turn after one run that does not count."""
    seconds: dict[Name, list[float]] = {name: [] for name in make}
    for repeat in range(repeats + 1):
        for name, run in make.items():
            began = time.perf_counter()
            run()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds
