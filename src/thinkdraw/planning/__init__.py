"""What a run will need, before it runs: memory, seconds, and what to change where it does not fit."""
