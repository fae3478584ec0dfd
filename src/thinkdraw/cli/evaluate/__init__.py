"""Verbs that evaluate a checkpoint: eval, thoughts."""
