"""`thinkdraw corpus …`: rationales written by a teacher, shown, counted, tokenised."""
