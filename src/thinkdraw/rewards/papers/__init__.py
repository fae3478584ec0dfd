"""Rewards of papers: judges that write, read strictly, compared pairwise or summed, and the policy as its own judge."""
