"""TODO benchmarks.geneval."""
