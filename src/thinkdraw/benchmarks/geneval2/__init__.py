"""TODO benchmarks.geneval2."""
