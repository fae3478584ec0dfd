"""TODO policies.sampling."""
