"""TODO recipes.phase."""
