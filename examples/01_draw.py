"""Draw a prompt with thoughts and without, and look at both.

    python examples/01_draw.py
    python examples/01_draw.py --policy runs/quickstart/grpo --prompt "a photo of three blue stars"

Takes ten seconds on two CPU cores. Writes pictures/01_draw.png: the upper row was drawn after a thought, the lower without.
"""

import argparse
from pathlib import Path

import torch

import thinkdraw
from thinkdraw.images import contact_sheet, to_png


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--policy", default="lab", help="lab, a run folder, a checkpoint folder or a Hugging Face id")
    options.add_argument("--prompt", default="a photo of a purple triangle")
    options.add_argument("--out", type=Path, default=Path("pictures/01_draw.png"))
    chosen = options.parse_args()

    policy = thinkdraw.load_policy(chosen.policy)

    # Four rollouts of one prompt: a thought each, and the picture drawn after it. The same seed gives the same rollouts.
    with_thoughts = thinkdraw.rollout(policy, [chosen.prompt], group_size=4, seed=0, thought="inline")
    without = thinkdraw.rollout(policy, [chosen.prompt], group_size=4, seed=0, thought="off")
    for thought in with_thoughts.thoughts:
        print("-", thought)

    # Pictures are uint8, (B, height, width, 3).
    assert with_thoughts.pictures is not None and without.pictures is not None
    sheet = contact_sheet(torch.cat([with_thoughts.pictures, without.pictures]).cpu(), columns=4)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_bytes(to_png(sheet))
    print("pictures:", chosen.out)


if __name__ == "__main__":
    main()
