"""Prompts and training data: readers, prompt sets, the leak guard."""
