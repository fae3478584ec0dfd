"""TODO corpus.filters."""
