"""Rewards of papers: judges that write or compare, an ensemble, the policy itself."""
