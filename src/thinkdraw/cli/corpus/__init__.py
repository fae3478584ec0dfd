"""`thinkdraw corpus …`: rationales that a teacher writes."""
