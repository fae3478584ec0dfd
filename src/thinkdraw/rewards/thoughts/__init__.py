"""Rewards for the thought itself: its form, its length, and its truth."""
