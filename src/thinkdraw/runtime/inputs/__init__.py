"""A run's inputs: content hashes of files and caches, and the record of a run's."""
