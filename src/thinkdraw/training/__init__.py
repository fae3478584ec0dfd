"""What all recipes share: processes, run folder, optimiser, data, checkpoints."""
