"""TODO benchmarks.unigenbench."""
