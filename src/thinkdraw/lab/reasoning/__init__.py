"""Riddles: prompts whose scene has to be worked out, with their derivations."""
