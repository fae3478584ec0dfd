"""Does an evaluation find what is wrong with a checkpoint? Equal checkpoints, and one that confuses words. Prints a table.

    python bench/broken_skill.py --out runs/broken_skill --swap three,four

Three evaluations of the same prompts and seeds: the checkpoint, its copy, and a copy whose embeddings of the named words are
swapped, so that it reads the one as the other. `thinkdraw eval compare=[A,B]` must find 0 between the first two, exactly, and
between the first and the third a difference in the columns that are about these words.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from thinkdraw.cli.evaluate.tables import print_comparison
from thinkdraw.policies.janus.policy import JanusPolicy
from thinkdraw.policies.opening import load_trained
from thinkdraw.studies.evaluate import run
from thinkdraw.studies.evaluate_import import compare_folders
from thinkdraw.studies.evaluate_open import EvaluateConfig


def swap_words(policy: JanusPolicy, words: list[str]) -> None:
    """Exchange the input embeddings of two words, each a token of its own."""
    ids = [policy.processor.tokenizer(f" {word}", add_special_tokens=False).input_ids for word in words]
    if len(ids) != 2 or any(len(found) != 1 for found in ids):
        raise SystemExit(f"--swap {','.join(words)}: give two words that are one token each")
    model: Any = policy.model
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        weight[[ids[0][0], ids[1][0]]] = weight[[ids[1][0], ids[0][0]]].clone()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--policy", default="lab")
    parser.add_argument("--benchmark", default="lab-geneval")
    parser.add_argument("--swap", action="append", required=True, metavar="WORD,WORD")
    parser.add_argument("--count", type=int, default=192)
    parser.add_argument("--samples", type=int, default=4)
    given = parser.parse_args()

    policy = load_trained(given.policy, "fp32")
    policy.save(given.out / "copy")
    for pair in given.swap:
        swap_words(policy, pair.split(","))
    policy.save(given.out / "broken")
    checkpoints = {"whole": given.policy, "copy": str(given.out / "copy"), "broken": str(given.out / "broken")}
    for name, path in checkpoints.items():
        run(EvaluateConfig(
            benchmarks=[given.benchmark], policy=path, count=given.count, samples=given.samples,
            out=given.out / "eval" / name, latency_pictures=0,
        ))  # fmt: skip
    for other in ("copy", "broken"):
        for found in compare_folders(given.out / "eval" / "whole", given.out / "eval" / other):
            print_comparison(found)


if __name__ == "__main__":
    main()
