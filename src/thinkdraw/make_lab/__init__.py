"""TODO make_lab."""
