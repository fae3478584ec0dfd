"""The lab's own suite: GenEval's rules over its exact detector, plus understanding and thoughts."""
