"""Rewards from a detector: the prompt's things are there, in number and in place."""
