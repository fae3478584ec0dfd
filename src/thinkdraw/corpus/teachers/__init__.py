"""TODO corpus.teachers."""
