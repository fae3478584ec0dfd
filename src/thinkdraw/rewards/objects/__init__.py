"""Rewards for what a detector finds of a prompt's things: that they are there, how many, and where they stand."""
