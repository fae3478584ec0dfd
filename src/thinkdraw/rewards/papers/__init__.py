"""Rewards of published papers, put together as there."""
