"""GenEval: objects, counts, colours and positions, checked by a detector."""
