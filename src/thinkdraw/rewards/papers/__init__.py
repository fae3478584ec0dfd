"""TODO rewards.papers."""
