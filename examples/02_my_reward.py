"""Train with a reward of your own: here, how much of a picture is dark.

    python examples/02_my_reward.py

Takes a minute on two CPU cores. The command line finds the reward as well, from the folder that holds this file:

    cd examples
    thinkdraw train lab_grpo policy=lab reward.name=02_my_reward:Darkness out=runs/dark max_steps=2

Two phases show that it runs; to see pictures darken, give it twenty.
"""

import argparse

from torch import Tensor

import thinkdraw
from thinkdraw.types import Rollouts


class Darkness:
    """Reward dark pictures: 0 is white, 1 is black.

    A reward has a name, and turns B rollouts into B numbers. It can read `rollouts.prompts`, `.thoughts` and `.pictures`.
    NaN means "no verdict": such a rollout is counted, shown and left out of the loss. It is never a zero.
    """

    name = "darkness"

    def __call__(self, rollouts: Rollouts) -> Tensor:
        assert rollouts.pictures is not None
        return 1 - rollouts.pictures.float().mean((1, 2, 3)).cpu() / 255


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--steps", type=int, default=2)
    options.add_argument("--out", default="runs/darkness")
    chosen = options.parse_args()

    # Try it by hand before you train with it: what does it say of eight pictures?
    policy = thinkdraw.load_policy("lab")
    rollouts = thinkdraw.rollout(policy, thinkdraw.load_prompts(count=2), group_size=4, seed=0)
    print("before training:", Darkness()(rollouts))

    # A reward is named by its module and class. Python finds this module in the folder of the script that runs.
    run = thinkdraw.train(
        "lab_grpo",
        "policy=lab",
        "reward.name=02_my_reward:Darkness",
        f"out={chosen.out}",
        f"max_steps={chosen.steps}",
        "prompts_per_phase=4",
        "group_size=4",
        "validation.prompts.count=4",
    )
    print("report:", thinkdraw.report(run))


if __name__ == "__main__":
    main()
