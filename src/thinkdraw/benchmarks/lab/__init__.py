"""TODO benchmarks.lab."""
