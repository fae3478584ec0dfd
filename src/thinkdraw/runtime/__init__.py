"""What every run needs around the mathematics: files, metrics, checkpoints, devices."""
