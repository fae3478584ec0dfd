"""`thinkdraw prompts …`: prompt sets made, and checked against test sets."""
