"""Rewards for the thought itself: its form and length, and whether the picture keeps what it announced."""
