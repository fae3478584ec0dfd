"""Prompts of the user's own, judged by any reward."""
