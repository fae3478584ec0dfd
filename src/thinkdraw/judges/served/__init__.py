"""Judges behind an OpenAI-compatible server: P(yes), first words, and texts."""
