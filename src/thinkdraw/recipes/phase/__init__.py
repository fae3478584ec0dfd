"""The parts of a GRPO phase: sampling, judging, advantages, validation, log."""
