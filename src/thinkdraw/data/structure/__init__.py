"""TODO data.structure."""
