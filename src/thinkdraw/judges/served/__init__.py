"""Judges behind an OpenAI-compatible server: yes or no with its probability, first words, and texts."""
