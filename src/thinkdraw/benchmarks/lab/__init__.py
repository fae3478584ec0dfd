"""The lab's own suite: pictures by its exact detector, understanding, thoughts."""
