"""T2I-CompBench++: eight categories, each with its judge and its scale."""
