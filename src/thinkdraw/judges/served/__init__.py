"""TODO judges.served."""
