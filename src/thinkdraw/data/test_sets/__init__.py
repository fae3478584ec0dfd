"""Test prompts of published benchmarks by hashes, so that nobody trains on them."""
