"""TODO benchmarks.dpg."""
