"""TODO judges.scorers."""
