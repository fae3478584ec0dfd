"""How a run's model leaves: in which layout, with which card, and to which hub."""
