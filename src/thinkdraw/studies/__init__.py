"""Runs of runs: evaluate, compare, sweep, and the quickstart."""
