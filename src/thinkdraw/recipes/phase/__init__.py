"""The parts of a GRPO phase: rollouts, judging, advantages, and what is logged of them."""
