"""A corpus of rationales: a teacher looks at pictures, or reads prompts, and writes what a policy then learns to think.

source → work queue on disk → teacher → filters → parquet shards with ReasonGen-R1's column names (arXiv 2505.24875) and a card.
"""
