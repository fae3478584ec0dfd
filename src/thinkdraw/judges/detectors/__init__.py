"""TODO judges.detectors."""
