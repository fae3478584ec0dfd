"""Memory and seconds that a run will need, and changes that make it fit."""
