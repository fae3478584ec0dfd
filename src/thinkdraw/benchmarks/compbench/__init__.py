"""TODO benchmarks.compbench."""
