"""Speed and memory of two checkouts on one machine, taken in turn: rollouts, a GRPO step, the memory of an update.

    python bench/side_by_side.py --before ../before --after . --turns 5 --out side_by_side.json

Each side runs its own benches (`rollouts.py`, `grpo_step.py`, `update_memory.py`) in its own interpreter, ROOT/.venv/bin/python
on ROOT/src, with the same arguments and threads. In every turn both run one after the other, and the side that begins
alternates, so that a machine that grows slower, or a second run that finds files in memory, counts on both sides. A line
is the median over turns of the ratio after / before of the same turn, with the lowest and the highest; more than 1 is
faster for the first two benches, and more memory for the third. Ratios to transformers' `generate`, and to the plain
loop, are each side's own. --quick: small settings and two turns, to see that everything runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

SIDES = ("before", "after")
WANTED = {"rollouts": "≥ 0.97", "grpo_step": "≥ 0.97", "update_memory": "≤ 1.03"}
ARGUMENTS = {
    "rollouts": "--repeats 3",
    "grpo_step": "--repeats 3 --plain-modes fp32 --precisions bf16 --micro-rows 32",
    "update_memory": "--only thinkdraw",
}
QUICK = {
    "rollouts": "--repeats 1 --prompts 2 --group-size 2",
    "grpo_step": "--repeats 1 --prompts 2 --group-size 2 --plain-modes fp32 --precisions bf16 --micro-rows 4",
    "update_memory": "--only thinkdraw --layers 1 --rows 1",
}
Measured = dict[str, float]


def run(bench: str, root: Path, arguments: list[str]) -> dict:
    """The JSON that a checkout's own bench writes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        command = [f"{root}/.venv/bin/python", f"bench/{bench}.py", *arguments]
        command += ["--out", str(out)] if bench == "grpo_step" else ["--json"]
        environment = os.environ | {"PYTHONPATH": f"{root}/src"}
        reply = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        if reply.returncode:
            sys.exit(f"{' '.join(command)} in {root}: exit {reply.returncode}\n{reply.stderr.strip()[-2000:]}")
        return json.loads(out.read_text() if bench == "grpo_step" else reply.stdout)


def costs(bench: str, found: dict) -> tuple[Measured, Measured]:
    """What ours costs in seconds or bytes, and how many times less than the alternative that is."""
    if bench == "rollouts":
        phases = {phase: found[phase] for phase in ("think and draw", "draw only")}
        ours = {f"{phase}, {name}": seconds for phase, values in phases.items()
                for name, seconds in values["seconds"].items() if name.startswith("thinkdraw")}  # fmt: skip
        return ours, {f"{phase}: transformers / thinkdraw": values["ratio"] for phase, values in phases.items()}
    if bench == "grpo_step":
        ours = {f"{name}, {part}": found["medians"][name][part]
                for name in ("thinkdraw", "thinkdraw, guidance in the loss") for part in ("sample", "update", "step")}  # fmt: skip
        return ours, {f"{name}: plain / ours": statistics.median(found["ratios"][name])
                      for name in ("thinkdraw", "thinkdraw, guidance in the loss")}  # fmt: skip
    return {name: float(row["bytes"]) for name, row in found["rows"].items()}, {}


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f}  [{min(values):.3f}, {max(values):.3f}]"


def report(bench: str, turns: list[dict[str, dict]]) -> None:
    measured = [{side: costs(bench, found) for side, found in turn.items()} for turn in turns]
    memory = bench == "update_memory"
    print(f"\n{bench}: {'bytes' if memory else 'throughput'} of after / before, wanted {WANTED[bench]}")
    for name in [name for name in measured[0]["before"][0] if name in measured[0]["after"][0]]:
        pairs = [(turn["before"][0][name], turn["after"][0][name]) for turn in measured]
        ratios = [after / before if memory else before / after for before, after in pairs]
        unit, (one, other) = "GB" if memory else "s", (statistics.median(side) for side in zip(*pairs))
        scale = 1e9 if memory else 1.0
        print(f"  {name:42} {spread(ratios)}   {one / scale:.3f} and {other / scale:.3f} {unit}")
    for side in SIDES:
        for name in measured[0][side][1]:
            print(f"  {side:6} {name:42} {spread([turn[side][1][name] for turn in measured])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout with its .venv")
    parser.add_argument("--after", type=Path, default=Path(__file__).parent.parent)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[*ARGUMENTS], choices=[*ARGUMENTS])
    parser.add_argument(
        "--prompts", type=int, help="of a phase, in groups of 8; fewer than the benches' own 8 take less time"
    )
    parser.add_argument("--repeats", type=int, help="of a phase or step within a turn")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, help="everything that was measured, as JSON")
    options = parser.parse_args()
    roots = {side: getattr(options, side).resolve() for side in SIDES}
    everything: dict[str, list[dict[str, dict]]] = {}
    for bench in options.only:
        arguments = [*(QUICK if options.quick else ARGUMENTS)[bench].split(), "--threads", str(options.threads)]
        if bench != "update_memory":
            arguments += [
                f"--{name}={getattr(options, name)}" for name in ("prompts", "repeats") if getattr(options, name)
            ]
        everything[bench] = []
        for turn in range(2 if options.quick else options.turns):
            order = SIDES if turn % 2 == 0 else SIDES[::-1]
            everything[bench].append({side: run(bench, roots[side], arguments) for side in order})
            if options.out:
                options.out.write_text(json.dumps(everything, indent=2) + "\n")
        report(bench, everything[bench])


if __name__ == "__main__":
    main()
