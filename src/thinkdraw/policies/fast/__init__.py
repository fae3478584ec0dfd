"""TODO policies.fast."""
