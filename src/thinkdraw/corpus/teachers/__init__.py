"""Who writes a corpus: what a teacher is asked, how fast and how often, and what of its answers is kept."""
