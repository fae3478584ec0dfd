"""A corpus of rationales: what a teacher writes, a policy learns to think.

The teacher looks at pictures, or reads prompts. A corpus goes from source over work queue, teacher and filters to
parquet shards, with ReasonGen-R1's column names (arXiv 2505.24875), and a card.
"""
