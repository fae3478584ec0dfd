"""GenEval 2: questions about each atom of a prompt, and soft TIFA over answers."""
