"""`thinkdraw store …`: what a rollout store holds, and all of it as one file."""
