"""Who writes rationales: a grammar or a model, how it is asked, and how its answers are read."""
