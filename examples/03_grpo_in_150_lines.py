"""GRPO, written out: sample groups, judge them, and make the better rollouts of each group likelier.

    python examples/03_grpo_in_150_lines.py
    python examples/03_grpo_in_150_lines.py --policy runs/quickstart/sft --phases 40 --out runs/by_hand

The recipe `thinkdraw train lab_grpo` does the same, and adds what a long run needs: resume, validation, several
processes, entropy control, a report. This file is for reading, and for trying an idea that no setting covers.
The two phases of the first command take a minute on two CPU cores.

Shape letters: P prompts, G rollouts of each, B = P·G rows, T tokens of a row (thought and picture, one after the other).
"""

import argparse
from pathlib import Path

import torch

import thinkdraw
from thinkdraw.objectives import clipped_loss, count_segments, group_normalized
from thinkdraw.types import Policy, Prompt, Reward, Rollouts

PROMPTS_PER_PHASE = 8  # P
GROUP_SIZE = 8  # G; GRPO compares rollouts of one prompt, so at least 2
MICRO_ROWS = 16  # rows whose activations are in memory at once; changes the speed, not the gradient
LEARNING_RATE = 1.5e-4
CLIP_LOW, CLIP_HIGH = 0.2, 0.2
MAX_GRAD_NORM = 1.0


def learn(
    policy: Policy, optimiser: torch.optim.Optimizer, rollouts: Rollouts, rewards: torch.Tensor
) -> dict[str, float]:
    """Make one optimiser step on a phase; return what to print of it."""
    # (reward − mean of the group) / std of the group. A row without a verdict (NaN) is not `valid`.
    advantages = group_normalized(rewards, GROUP_SIZE)

    # The loss divides by the tokens of the *whole* step, so that micro-batches add up to one mean. Text and picture have
    # a mean each: hundreds of image tokens would otherwise drown a thought of thirty. A group whose rewards are all equal
    # teaches nothing; its advantages are 0, and it stays in these denominators.
    counts = count_segments(rollouts.mask & advantages.valid[:, None], rollouts.is_image)

    optimiser.zero_grad()
    for rows in torch.arange(len(rollouts)).split(MICRO_ROWS):
        micro = rollouts.select(rows)  # and without the padding that only longer rows need
        # Scored under the distribution that the tokens were sampled from: same temperature, guidance, top-k and top-p.
        scores = policy.log_probs(micro)
        # With one step per phase the old policy is the one that is being differentiated: all ratios are 1, and clipping
        # starts to matter only with a second step on the same rollouts. Pass `micro.log_probs` for that.
        old_log_probs = scores.log_probs.detach()
        policy_loss = clipped_loss(
            scores.log_probs,
            old_log_probs,
            advantages.values[rows],
            micro.mask & advantages.valid[rows, None],
            micro.is_image,
            clip_low=CLIP_LOW,
            clip_high=CLIP_HIGH,
            counts=counts,
        )
        # Its value is 0 here, because a group's advantages add up to 0; what it has is a gradient.
        policy_loss.loss.backward()
    grad_norm = torch.nn.utils.clip_grad_norm_(policy.network.parameters(), MAX_GRAD_NORM)
    optimiser.step()
    return {
        "grad_norm": float(grad_norm),
        "groups_without_spread": float(advantages.zero_variance.sum()),
    }


def train(policy: Policy, reward: Reward, prompts: list[Prompt], phases: int) -> None:
    """Sample, judge and learn, `phases` times."""
    trained = [weight for weight in policy.network.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.0)
    for phase in range(phases):
        # 1. Sample G rollouts for each of P prompts. Rows are prompt-major: the G rollouts of a prompt are neighbours.
        start = phase * PROMPTS_PER_PHASE
        chosen = [prompts[(start + i) % len(prompts)] for i in range(PROMPTS_PER_PHASE)]
        rollouts = thinkdraw.rollout(policy, chosen, group_size=GROUP_SIZE, seed=phase, thought="inline")

        # 2. Judge: one number for each picture.
        rewards = reward(rollouts).rewards

        # 3. Learn.
        row = learn(policy, optimiser, rollouts, rewards)
        words = " ".join(f"{name} {value:.3f}" for name, value in row.items())
        print(f"phase {phase + 1}/{phases}  reward {rewards.nanmean():.3f}  {words}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--policy", default="lab", help="lab, a run folder, a checkpoint folder or a Hugging Face id")
    options.add_argument("--phases", type=int, default=2)
    options.add_argument("--test-prompts", type=int, default=24)
    options.add_argument("--out", type=Path, default=Path("runs/by_hand"))
    settings = options.parse_args()

    policy = thinkdraw.load_policy(settings.policy)
    reward = thinkdraw.load_reward("lab-detector")  # exact: it finds the shapes and checks each fact of the prompt
    prompts = thinkdraw.load_prompts("lab-geneval", split="train", count=600)

    def test(when: str) -> None:
        """Judge pictures of test prompts, which share no scene with the training prompts."""
        score = thinkdraw.evaluate(policy, "lab-geneval", count=settings.test_prompts, samples=2).score
        print(f"{when}: {score.value:.3f} [{score.low:.3f}, {score.high:.3f}] of the test pictures are right")

    test("before")
    train(policy, reward, prompts, settings.phases)
    test("after")

    # An ordinary checkpoint: plain transformers, `thinkdraw generate` and `thinkdraw eval` open it.
    policy.save(settings.out)
    print("checkpoint:", settings.out)


if __name__ == "__main__":
    main()
